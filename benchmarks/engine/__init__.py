"""The benchmark of the training engine: fine-tuning by alue-bench compared with transformers' `Trainer`."""
