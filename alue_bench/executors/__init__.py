"""Doing the runs of a plan. Today: one after the other, in this process."""
