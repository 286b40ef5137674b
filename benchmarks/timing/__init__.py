"""The timing of one training by our engine or by transformers' `Trainer`, for the benchmarks of engine and sweep."""
