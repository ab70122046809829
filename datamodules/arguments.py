"""The arguments that every data module takes, so that a data set need not repeat them.

A class with arguments of its own takes the rest as `**loader: Unpack[LoaderArguments]` and hands them on:

    def __init__(self, root: str, *, languages: list[str] | None = None, **loader: Unpack[LoaderArguments]) -> None:
        super().__init__(root, **loader)

Names and types are then checked where such a class is called, and the command line shows and takes each of them,
with the default and the words of the class that spells it out. A class that fixes one of them, or gives it another
default, spells it out itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from umd.files import UserError

if TYPE_CHECKING:
    from typing import Unpack as Unpack
else:

    class Unpack:
        """Stands in for `typing.Unpack`, which the command line's parser takes for arguments without defaults.

        Where a parameter's type says nothing, it follows `super().__init__(**loader)` to the class that spells
        them out.
        """

        def __class_getitem__(cls, arguments: type) -> object:
            return Any


class LoaderArguments(TypedDict, total=False):
    """What `datamodules.base.ImageTextDataModule` takes, but `root` and `text_length`: see there.

    How long the texts are is for each data set, or task, to say.
    """

    tokenizer: str
    image_size: int
    batch_size: int
    num_workers: int
    random_resized_crop: bool
    augmented_views: int
    cache: str | None
    jpeg_draft: bool
    seed: int


def check_least(least: int, **arguments: int) -> None:
    """Checks numbers given by the user.

    Raises:
        UserError: One is smaller than `least`.
    """
    for name, value in arguments.items():
        if value < least:
            raise UserError(f"{name} must be at least {least}, not {value}")
