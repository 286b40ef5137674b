"""Estimates of the FLOPs and the time that the runs of a plan will need, made before any run starts."""
