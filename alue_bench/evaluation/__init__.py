"""From logits to predictions and metrics."""
