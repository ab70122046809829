"""Image files, found under the names that annotations give them: these may have another ending, or none."""

from __future__ import annotations

import os
from pathlib import Path

from datamodules.images import ImageError

ENDINGS = (
    *(".bmp", ".dcm", ".dicom", ".gif", ".j2k", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
"""What is taken for the ending of an image's name; "pone.0185922.g004" has none."""


def without_ending(name: str) -> str:
    """A file's name without the ending of an image file, if it has one."""
    stem, ending = os.path.splitext(name)
    return stem if ending.lower() in ENDINGS else name


def image_folder(root: Path, *names: str) -> str:
    """The first of these folders that `root` holds, upper and lower case aside; the first name where it holds none."""
    held = {path.name.lower(): path.name for path in sorted(root.iterdir(), reverse=True) if path.is_dir()}
    return next((held[name.lower()] for name in names if name.lower() in held), names[0])


class ImageFinder:
    """Finds the files of image names; each folder is listed at most once, and only where a name is not found."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, list[str]]] = {}

    def find(self, path: Path) -> Path:
        """The same path; where there is no such file, the one of its folder that has its name but for the ending.

        Raises:
            ImageError: Several have, or the name cannot be one of a file.
        """
        try:
            if path.is_file():
                return path
        except OSError as error:
            raise ImageError(f"{error.strerror}") from error
        names = self.named(path.parent, path.name)
        if len(names) > 1:
            raise ImageError(f"no such file, but {' and '.join(names)}: nothing says which of them it is")
        return path.with_name(names[0]) if names else path

    def named(self, folder: Path, name: str) -> list[str]:
        """The files of a folder that have this name, the endings of images aside; none where there is no folder."""
        if folder not in self._listed:
            listed: dict[str, list[str]] = {}
            if folder.is_dir():
                with os.scandir(folder) as entries:
                    for file in sorted(entry.name for entry in entries if entry.is_file()):
                        listed.setdefault(without_ending(file), []).append(file)
            self._listed[folder] = listed
        return self._listed[folder].get(without_ending(name), [])
