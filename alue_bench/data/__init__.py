"""The data path from official files to batches: location, reading, verification, splits, tokenization, batches."""
