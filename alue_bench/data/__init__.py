"""The processing of data, from official files to batches: location, reading, verification, splits, tokenization."""
