"""The implementation of the commands `run`, `sweep` and `search`, from options and study files (TOML) to results."""
