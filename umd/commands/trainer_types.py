"""How the numbers of Trainer's options are read: 1 is one batch, 1.0 is all of them."""

from __future__ import annotations

import inspect
from functools import reduce
from operator import or_
from types import UnionType
from typing import Union, get_args, get_origin

from lightning.pytorch import Trainer


def read_whole_numbers_as_such() -> None:
    """Have the parser try `int` before `float` wherever an argument of Trainer may be either.

    `typing` keeps one object for Optional[Union[int, float]] and Optional[Union[float, int]]: whoever in a process
    writes it first, in whichever library, decides the order in which the parser tries them, and so whether
    `--trainer.limit_train_batches 1` is one batch or the whole epoch. `int | float` keeps its own order.
    """
    function = inspect.unwrap(Trainer.__init__)
    for name, annotation in list(function.__annotations__.items()):
        kinds = get_args(annotation)
        if get_origin(annotation) in (Union, UnionType) and int in kinds and float in kinds:
            others = [kind for kind in kinds if kind not in (int, float)]
            function.__annotations__[name] = reduce(or_, others, int | float)
