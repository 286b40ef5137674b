"""The command line of alue-bench, with one small module for each command."""
