"""Stress tests: a plan that is killed, loses its server or fills its disk ends with the results of an undisturbed plan.

A campaign executes a small plan of runs, disturbs it in one way, and restarts it until it is complete.

    python -m tests.stress                                     every campaign with fifty kills: up to an hour
    python -m tests.stress --executor local --kills 50         one campaign; `--help` lists all campaigns

    python -m pytest -m stress                                 the short form: two kills, three invocations at once, and
                                                               a Ray cluster and a server that stop; three minutes

`python -m pytest` leaves out all campaigns and runs only the tests of the campaigns' own code.
docs/scaling.md has the results of the long form.
"""
