"""The search for the cheapest freezing setting that keeps the score of full fine-tuning, with few runs.

    candidates     the freezing settings to choose from, and their training costs
    observations   scores of runs; a candidate's loss against full fine-tuning, and its uncertainty
    surface        a model of the loss of candidates that were not run
    policy         the next run, or the end of the search with its reason
    runs           the conversion of planned runs to candidates, and of predictions to scores
    state          the progress of one search, and its conclusion

This package executes no runs. Its decisions are pure functions of the finished runs: the same finished runs always lead
to the same next run. An interrupted search therefore continues as if it had not been interrupted.
"""
