"""Tables, progress bars and the console: everything that the commands show in a terminal."""
