"""The cache for the outputs of frozen layers, which are computed once and kept on disk."""
