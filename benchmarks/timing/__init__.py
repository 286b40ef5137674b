"""A timed training, by our engine or by transformers' `Trainer`: what the benchmarks of engine and sweep measure."""
