"""Helpers for texts that people read: escaping for each output format, redaction of passwords, suggested commands."""
