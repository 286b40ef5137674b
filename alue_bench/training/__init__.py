"""Fine-tuning of one model on one task: loading, freezing, optimisation and the training loop."""
