"""The objectives, one a file: pure functions that return unweighted terms."""
