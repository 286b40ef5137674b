"""The values and hooks that plugins and the harness exchange, their validation, and the registry of plugins."""
