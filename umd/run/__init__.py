"""One training's life on disk."""
