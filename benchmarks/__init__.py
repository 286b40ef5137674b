"""Measurements that back what the documentation claims; not part of the wheel.

Commands, each of which reads as options → measure → report, the first three with their tables in a module beside them:

    engine, engine_report               fine-tuning by our engine and by the library's `Trainer`
    sweep, sweep_report                 a sweep over frozen layers that shares one store of frozen prefixes
    mini_quality, mini_quality_report   the bundled encoder, random weights, and a linear model
    search                              what a search finds, held against a finished sweep
    large_store                         how long ten thousand runs take to be read, compared, exported, reported

One destroys:

    faults, fault_processes, fault_store    a plan that is killed at random moments ends as one that was left alone
"""
