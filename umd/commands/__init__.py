"""The commands of `umd`, one a file."""
