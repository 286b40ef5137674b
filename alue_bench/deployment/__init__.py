"""Trained models as folders that other programs load, and their predictions for new texts."""
