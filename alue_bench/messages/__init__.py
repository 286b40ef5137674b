"""The preparation of texts that are shown or stored: escaping, removal of passwords, suggested shell commands."""
