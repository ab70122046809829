"""A part of a module by its dotted name, or which names there are."""

from __future__ import annotations

import difflib

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule
from torch.nn import Module


def submodule(root: LightningModule, name: str, callback: str) -> Module:
    """The submodule of this dotted name, which stands in the argument `modules` of a callback.

    Raises:
        MisconfigurationException: there is none; with those that there are.
    """
    module: Module = root
    path: list[str] = []
    for part in name.split("."):
        children = dict(module.named_children())
        if part not in children:
            missing, there = ".".join([*path, part]), [".".join([*path, child]) for child in children]
            nearest = difflib.get_close_matches(missing, there, n=1)
            raise MisconfigurationException(
                f"{callback}'s modules names {name!r}, but {type(root).__name__} has no submodule {missing!r}."
                + (f" Did you mean {nearest[0]!r}?" if nearest else "")
                + f" There is: {', '.join(map(repr, there)) or 'nothing below that'}."
            )
        module = children[part]
        path.append(part)
    return module
