"""Benchmarks that support the claims of the documentation; not part of the wheel. See README.md beside this file.

Each of these packages is a command, such as `python -m benchmarks.engine`, and reads as options → measure → report:

    engine        fine-tuning by our engine and by transformers' `Trainer`
    gpu           whatever some minutes on a GPU allow, the most important first
    sweep         a sweep over frozen layers whose runs share the stored outputs of frozen bottom layers
    sweep.whole   the cost of a complete sweep compared with `Trainer`
    search        the result of a search compared with a finished sweep
    quality       the bundled encoder compared with random weights and with a linear model
    large_store   the time to read, compare, export and report ten thousand runs

They share the modules in this folder, and the package `timing`, which times one training.
"""
