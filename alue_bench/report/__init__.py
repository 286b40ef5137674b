"""What the results say: read from the tracking store, put beside each other and beside what was published."""
