"""Texts for people: escaping for each output format, redaction of passwords, and commands that a message suggests."""
