"""Tables, progress bars and the console: everything that commands and notebooks show."""
