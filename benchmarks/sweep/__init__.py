"""The benchmarks of a sweep: shared outputs of frozen bottom layers (this package), and a complete sweep (`whole`)."""
