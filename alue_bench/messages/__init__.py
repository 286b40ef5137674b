"""The preparation of texts that people read: escaping for each output format, removal of passwords, shell commands."""
