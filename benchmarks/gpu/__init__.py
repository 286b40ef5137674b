"""The benchmark for a GPU that is available for some minutes: first checks, then measurements, most useful first."""
