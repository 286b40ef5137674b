"""The benchmark of a large store: the time to read, compare, export and report ten thousand runs."""
