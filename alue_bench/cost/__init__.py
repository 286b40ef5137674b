"""Estimates of the FLOPs and the time of a plan, computed before anything runs."""
