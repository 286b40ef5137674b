"""The plugin contract: the values and hooks that plugins and the harness exchange, and the registry of plugins."""
