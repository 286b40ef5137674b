"""The benchmark of a search: its answer and its cost, compared with a finished sweep."""
