"""The benchmark of a complete sweep, compared with fine-tuning the same cells by transformers' `Trainer`."""
