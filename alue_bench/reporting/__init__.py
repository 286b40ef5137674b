"""Reports on the results in the MLflow store: comparisons of strategies, report pages, exports, leaderboard files."""
