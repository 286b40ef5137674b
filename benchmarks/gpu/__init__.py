"""The benchmark for whenever a GPU is at hand: checks, then measurements in order of worth, within some minutes."""
