"""`umd reproduce`: the tables and figures of both papers, each by one command."""

from umd.reproduce.command import main

__all__ = ["main"]
