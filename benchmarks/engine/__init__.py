"""The benchmark of the engine: fine-tuning by alue-bench compared with transformers' `Trainer`."""
