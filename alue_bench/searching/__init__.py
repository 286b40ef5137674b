"""The search for the cheapest freezing setting that keeps the score, from few runs.

    candidates     the settings and their training costs
    observations   scores of runs; a candidate's loss against full fine-tuning, and its uncertainty
    surface        a model of the loss of candidates that were not run
    policy         the next run, or the end of the search with its reason
    runs           the connection between candidates and the runs of a plan
    state          the progress of one search, and its conclusion

This package executes no runs. Its decisions are pure functions of the finished runs: the same runs lead to the same
next run, so that an interrupted search continues as if it had not been interrupted.
"""
