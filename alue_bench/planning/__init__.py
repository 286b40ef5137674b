"""The planning of runs: from the user's request to an ordered list of runs, with grids, recipes and sweep orders."""
