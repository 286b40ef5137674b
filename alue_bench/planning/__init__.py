"""From a request to an ordered list of runs: grids, recipes, and the order in which a sweep does its cells."""
