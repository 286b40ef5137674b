"""Doing the runs of a plan: one after the other in this process, or handed out to workers in others."""
