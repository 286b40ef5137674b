"""Fine-tuning one model on one task: loading, freezing, optimising, the loop."""
