"""The pre-training of `mini`, the small Arabic BERT bundled with alue-bench.

This package is not part of the wheel. ``python -m tools.pretraining --help`` lists its steps: prepare, train, anneal,
evaluate, export.
"""
