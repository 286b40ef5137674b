"""The way of the data from files to batches: locating and verifying files, splitting rows, tokenization, batching."""
