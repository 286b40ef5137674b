"""The contract between alue-bench and its plugins: the values and hooks they exchange, and the plugin registry."""
