"""The execution of a plan: its runs one after the other in this process, or distributed to worker processes."""
