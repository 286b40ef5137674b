"""Reports on the results in the tracking store: comparisons of strategies, pages, exports and submissions."""
