"""The contract between alue-bench and its plugins: the values and hooks that they exchange, and the registry of
plugins.
"""
