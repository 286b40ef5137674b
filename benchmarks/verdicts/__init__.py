"""`python -m benchmarks.verdicts`: how often verdicts and recommendations are wrong, by simulation.

    comparisons    the verdicts of `alue-bench compare` (the default part)
    searches       the answers of `alue-bench search`, on the simulated tasks of the module `worlds`
    sweeps         the estimated losses of score of the settings that `alue-bench sweep` recommends

Each part is a module of this package with a function `main` that takes the part's arguments and returns the exit code.
"""
