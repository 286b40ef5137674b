"""Trained models, stored as folders that other programs can load, and their predictions for new texts."""
