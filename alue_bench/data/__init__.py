"""The preparation of data, from files to batches: finding and verifying files, splitting rows, tokenizing, batching."""
