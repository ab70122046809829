"""Checkpoints of the released code: their layout, and their way into this project."""
