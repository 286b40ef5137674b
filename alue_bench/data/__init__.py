"""The processing of data from official files to batches: finding, reading and checking files, splits, tokenization."""
