"""The timing of one training by our engine or by transformers' `Trainer`, for the benchmarks engine, gpu and sweep."""
