"""The commands of the program, with one module for each command."""
