"""Stress tests: a plan that is killed, cut off from its server or given a full disk ends as one left alone.

    python -m tests.stress                                     every campaign with fifty kills: up to an hour
    python -m tests.stress --executor local --kills 50         one of them; `--help` lists them all

pytest runs the short form in `test_faults.py` only: one campaign of two kills, and three invocations at once.
docs/scaling.md has the results of the long form.
"""
