"""How a command speaks to its user: this project's own messages, and warnings without their place in the code."""

from __future__ import annotations

import logging
import warnings

from rich.logging import RichHandler


def show_messages() -> None:
    """Show what umd, callbacks and datamodules have to say, and the warnings of all others."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(show_time=False, show_path=False)]
    )
    for package in ("umd", "callbacks", "datamodules"):
        logging.getLogger(package).setLevel(logging.INFO)
    # What is said to the user is the message; where it is said from is not.
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
