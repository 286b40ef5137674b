"""Stress tests: a plan that is killed, cut off from its server or given a full disk ends as one left alone.

    python -m tests.stress                                     every campaign with fifty kills: up to an hour
    python -m tests.stress --executor local --kills 50         one of them; `--help` lists them all

    python -m pytest -m stress                                 the short form: two kills, three invocations at once, and
                                                               a Ray cluster and a server that stop; three minutes

`python -m pytest` leaves these out and runs only what checks the campaigns themselves.
docs/scaling.md has the results of the long form.
"""
