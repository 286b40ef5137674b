"""`python -m benchmarks.verdicts`: how often verdicts and recommendations are wrong, by simulation.

    comparisons    the verdicts of `compare` (the default part)
    searches       the answers of `search`, in the worlds of `worlds`
    sweeps         the losses of settings that `sweep` recommends

Each part is a module of this package with a function `main` that takes the part's arguments and returns the exit code.
"""
