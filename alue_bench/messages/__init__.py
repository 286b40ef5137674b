"""The preparation of texts for readers: escaping for each output format, removal of passwords, shell commands."""
