"""The classes of data sets, known to the parser by their short names."""

from importlib import import_module

DATA = "datamodules"


def learn_short_names() -> None:
    """Import all that `datamodules` offers: the parser finds a class such as SLAKE only once it is there.

    By a name that is worked out, so that a step of `umd reproduce` depends on the data set that it is given alone.
    """
    face = import_module(DATA)
    for name in face.__all__:
        getattr(face, name)
