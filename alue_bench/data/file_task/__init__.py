"""Tasks from a user's own files: columns and labels are inferred, or read from a task file."""
