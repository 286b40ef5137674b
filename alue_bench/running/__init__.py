"""The execution of one run: it loads, fine-tunes and tests one model as a `RunSpec` states, and returns the result."""
