"""Tasks from a user's own data files: columns and labels are inferred from the data, or read from a task file."""
