"""The benchmarks of a sweep: shared frozen prefixes (this package), and a complete sweep (`whole`)."""
