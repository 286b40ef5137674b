"""The timing of one training by our engine or by transformers' `Trainer`, for two benchmarks (engine and sweep)."""
