"""Images that two data sets share: the same file, the same published id, or nearly the same picture."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from datamodules.base import ImageTextDataModule
from datamodules.images import ImageError, ImageFile, decode
from datamodules.records import Split
from umd.files import UserError

Way = Literal["same file", "same id", "near-duplicate"]
"""How an image is known to be in both."""

HASH_SIDE = 16
"""A perceptual hash has this many bits squared."""

NEAR = 10
"""Most bits of 256 in which the hashes of near-duplicates differ.

Measured on VQA-RAD's and MedPix's 2,365 images: halved, doubled, squared to 224 pixels, scaled to 128 or saved as JPEG
of quality 50, each stays within 10 bits of itself (quality 20: 99 in 100). Of 4,762 pairs of different images of one
MedPix case 18 do, to the eye the same slice or the next one; of pairs of two cases none below 36. Crops of 2 % differ
in 36 bits and are not found.
"""

MISSING = (
    "near-duplicates need the package imagehash (pip install -e '.[leaks]' in umd's folder, or pip install imagehash)"
)

# Series whose numbers mean the same image wherever they occur: MedPix (VQA-RAD, VQA-Med), ROCO, ROCOv2, SLAKE.
_PUBLISHED = re.compile(r"(?<![^\W_])(synpic\d+|ROCO_\d+|ROCOv2_\d+_[a-z]+_\d+|xmlab\d+)(?!\w)")

Hashes = tuple[list[str], NDArray[np.float32]]
"""Names of images, and their perceptual hashes, (N, 256) of plus and minus one."""

_BLOCK = 4096
"""Images that are compared with all others at once."""


@dataclass(frozen=True, slots=True)
class Shared:
    """An image that two data sets hold.

    Attributes:
        here: Its name in the first.
        there: Its name in the second.
        ways: How it is known; more than one may be true.
    """

    here: str
    there: str
    ways: tuple[Way, ...]


def other_data(given: str, option: str) -> ImageTextDataModule[Any]:
    """The data set that a user names as CLASS=FOLDER.

    Args:
        given: Such as "VQARAD=/data/vqa_rad"; a class of one's own with its module, "ward.WardQuestions=/data/ward".
        option: By which it is named, for error messages.

    Raises:
        UserError: It is not written so, or there is no such class.
    """
    name, _, folder = given.partition("=")
    if not name.rpartition(".")[2] or not folder:
        raise UserError(f"'{given}': a data set is named as CLASS=FOLDER, such as VQARAD=/data/vqa_rad")
    data = data_class(name, given)(folder)
    data.root_option = option
    return data


def data_class(name: str, given: str) -> type[ImageTextDataModule[Any]]:
    """The class of a data set, by its name; one that is not of this project by its module and name.

    Args:
        name: Such as "VQARAD", or "ward.WardQuestions".
        given: What the user wrote, for messages.

    Raises:
        UserError: There is none.
    """
    module, _, short = name.rpartition(".")
    try:
        kind = getattr(import_module(module or "datamodules"), short, None)
    except ImportError as error:
        raise UserError(f"'{given}': there is no module '{module}' ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, ImageTextDataModule)):
        raise UserError(f"'{given}': '{name}' is no class of a data set, such as VQARAD")
    return kind


def images_of(
    data: ImageTextDataModule[Any], splits: Iterable[Split]
) -> tuple[dict[str, ImageFile], dict[str, list[Split]]]:
    """The images of some splits by their names: the file of each, and those of these splits that it occurs in."""
    files: dict[str, ImageFile] = {}
    places: dict[str, list[Split]] = defaultdict(list)
    for split in splits:
        for name, file in data.image_files(split).items():
            files[name] = file
            places[name].append(split)
    return files, dict(places)


def can_hash() -> bool:
    """Whether near-duplicates can be looked for."""
    return importlib.util.find_spec("imagehash") is not None


def published_id(name: str) -> str | None:
    """The number under which an image was published, if its name holds one of a known series."""
    match = _PUBLISHED.search(name)
    return match[1] if match else None


def find_shared(
    here: Mapping[str, ImageFile], others: Sequence[Mapping[str, ImageFile]], *, near_duplicates: bool
) -> list[list[Shared]]:
    """The images of a data set that are in each of some others too, in its order.

    Files that cannot be read are no duplicates of anything.

    Args:
        here: Each image's file by its name.
        others: The same of other data sets.
        near_duplicates: Compare perceptual hashes too, for which each image is decoded; see `NEAR`.

    Raises:
        UserError: Near-duplicates are asked for, and imagehash is not installed.
    """
    place = {name: number for number, name in enumerate(here)}
    hashes = _hashes(here) if near_duplicates else None
    found = []
    for there in others:
        ways: dict[tuple[str, str], set[Way]] = defaultdict(set)
        for pair in _same_files(here, there):
            ways[pair].add("same file")
        for pair in _same_ids(here, there):
            ways[pair].add("same id")
        for pair in _near(hashes, _hashes(there)) if hashes else ():
            ways[pair].add("near-duplicate")
        found.append(
            [
                Shared(*pair, tuple(way for way in get_args(Way) if way in ways[pair]))
                for pair in sorted(ways, key=lambda pair: (place[pair[0]], pair[1]))
            ]
        )
    return found


def _same_ids(here: Mapping[str, ImageFile], there: Mapping[str, ImageFile]) -> Iterable[tuple[str, str]]:
    numbered = defaultdict(list)
    for name in there:
        if (number := published_id(name)) is not None:
            numbered[number].append(name)
    return [(name, other) for name in here for other in numbered.get(published_id(name) or "", ())]


def _same_files(here: Mapping[str, ImageFile], there: Mapping[str, ImageFile]) -> Iterable[tuple[str, str]]:
    named = defaultdict(list)
    for name, digest in _digests(there, _sizes(here)).items():
        named[digest].append(name)
    return [(name, other) for name, digest in _digests(here, _sizes(there)).items() for other in named.get(digest, ())]


def _sizes(files: Mapping[str, ImageFile]) -> set[int] | None:
    """The sizes of these files in bytes; None where an image is no file of its own, and has a size that none tells."""
    if not all(isinstance(file, Path) for file in files.values()):
        return None
    return {file.stat().st_size for file in files.values() if isinstance(file, Path) and file.is_file()}


def _digests(files: Mapping[str, ImageFile], sizes: set[int] | None) -> dict[str, str]:
    """SHA-256 of each file that has one of these sizes; of others no file can be the same."""
    found = {}
    for name, file in files.items():
        if not isinstance(file, Path):
            found[name] = file.digest
        elif file.is_file() and (sizes is None or file.stat().st_size in sizes):
            with file.open("rb") as opened:
                found[name] = hashlib.file_digest(opened, "sha256").hexdigest()
    return found


def _near(here: Hashes, there: Hashes) -> Iterable[tuple[str, str]]:
    (names, bits), (others, other_bits) = here, there
    for start in range(0, len(names), _BLOCK):
        # Of vectors of plus and minus one the product is the number of equal bits less that of different ones.
        equal_less_different = bits[start : start + _BLOCK] @ other_bits.T
        for row, column in np.argwhere(equal_less_different >= HASH_SIDE**2 - 2 * NEAR):
            yield names[start + row], others[column]


def _hashes(files: Mapping[str, ImageFile]) -> Hashes:
    """The perceptual hashes of the images that can be decoded.

    Raises:
        UserError: imagehash is not installed.
    """
    try:
        import imagehash
    except ImportError:
        raise UserError(MISSING) from None

    def bits(file: ImageFile) -> NDArray[np.bool_] | None:
        try:
            image = decode(file)
        except ImageError:
            return None
        found: NDArray[np.bool_] = imagehash.phash(image, hash_size=HASH_SIDE).hash.flatten()
        return found

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = {name: one for name, one in zip(files, pool.map(bits, files.values()), strict=True) if one is not None}
    table = np.array(list(found.values()), dtype=np.float32).reshape(len(found), HASH_SIDE**2)
    return list(found), 2 * table - 1
