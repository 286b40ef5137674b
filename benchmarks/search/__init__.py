"""The benchmark of `alue-bench search`: its result and its cost, compared with a finished sweep."""
