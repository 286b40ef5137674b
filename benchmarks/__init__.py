"""Benchmarks that support the claims of the documentation; not part of the wheel.

Each command reads as options → measure → report. The first three have their tables in a module of their own:

    engine, engine_report               fine-tuning by our engine and by transformers' `Trainer`
    sweep, sweep_report                 a sweep over frozen layers that shares one store of frozen prefixes
    mini_quality, mini_quality_report   the bundled encoder compared with random weights and with a linear model
    whole_sweep                         the cost of a complete sweep compared with `Trainer`
    search                              the result of a search compared with a finished sweep
    large_store                         the time to read, compare, export and report ten thousand runs

One command is a stress test:

    faults, fault_places, fault_processes, fault_store    a plan killed at random ends with the same results
"""
