"""Benchmarks that support the claims of the documentation; not part of the wheel. See README.md beside this file.

Each of these packages and modules is a command, such as `python -m benchmarks.engine`, which parses options, measures
and reports:

    engine        fine-tuning by our engine, compared with transformers' `Trainer`
    gpu           as many measurements as fit into some minutes on a GPU, the most important first
    sweep         the time that a sweep saves because its runs share the stored outputs of frozen bottom layers
    sweep.whole   the cost of a complete sweep, compared with `Trainer`
    search        the result of a search, compared with a finished sweep
    quality       the bundled encoder, compared with random weights and with a linear model
    prediction    the speed of `alue-bench predict`, compared with a transformers pipeline
    large_store   the time to read, compare, export and report ten thousand runs
    verdicts      simulations of how often verdicts and recommendations are wrong

They share the other modules in this folder, and the package `timing`, which times one training.
"""
