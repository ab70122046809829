"""Importing torch and Lightning without looking for garbage meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While heavy packages are imported, leave the garbage collector off, and what they made out of its sight then.

    They make some hundred thousand objects, all of which stay; the collector would look through them over and over,
    which is a sixth of the time that the imports take.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
