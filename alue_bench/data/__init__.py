"""From official files to batches: where they lie, reading and verifying, splits, tokenisation, length buckets."""
