"""FLOPs and time that a plan would take, computed before anything runs."""
