"""Measurements are values with a unit in their name: seconds, MiB, FLOPs."""
