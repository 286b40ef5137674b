"""The execution of the runs of a plan: one after the other in this process, or distributed to worker processes."""
