"""The planning of runs: from a request to an ordered list of runs, with grids, recipes and the order of a sweep."""
