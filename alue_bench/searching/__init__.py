"""The search for the cheapest freezing setting that keeps the score of full fine-tuning, with few runs.

    candidates     the freezing settings to choose from, and their training costs
    observations   scores of runs; the loss of score of a candidate against full fine-tuning, with its uncertainty
    surface        a model of the loss of score of candidates that were not run
    policy         the next run, or the end of the search with its reason
    runs           the conversion of planned runs to candidates, and of predictions to scores
    state          the progress of one search, and its conclusion

This package executes no runs; it only chooses them. The choice depends on nothing but the finished runs. An interrupted
search therefore continues as if it had not been interrupted.
"""
