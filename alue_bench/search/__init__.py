"""Finding the cheapest frozen setting that keeps the score, from few runs: values and decisions, no runs of its own.

    candidates   what may be frozen, and what training it costs
    evidence     scores of runs; how much a candidate loses against full fine-tuning, and how sure that is
    surface      what those scores say of candidates that were not run
    policy       the next run, or the end of the search and why

Everything here is a pure function of the runs done so far: the same runs lead to the same next run, so that a search
that was broken off goes on as if it had not been.
"""
