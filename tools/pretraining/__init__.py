"""The recipe that pre-trains `mini`, the small Arabic BERT bundled with alue-bench.

Not part of the wheel. ``python -m tools.pretraining --help`` lists the steps: prepare, train, anneal, evaluate,
export.
"""
