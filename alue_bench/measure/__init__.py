"""Measurements of a run: FLOPs, peak memory, energy, environment. The name of each value includes its unit."""
