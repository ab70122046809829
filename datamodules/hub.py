"""Data sets of questions as they lie on the Hugging Face hub: Parquet files with the images inside."""

from __future__ import annotations

from pathlib import Path

from datamodules.arguments import Unpack
from datamodules.own import OwnVQA
from datamodules.questions import VQARecord
from datamodules.records import Split
from datamodules.tables import find_tables
from datamodules.vqa import VQAArguments
from umd.files import UserError

LAYOUT = "data/{train,validation,test}-*.parquet"

CONVERTED = "refs/convert/parquet"
"""Where the hub keeps a copy in Parquet of data sets that are published in another format."""

TIMEOUT = 5
"""Of a single question to the hub, in seconds."""


class HubVQA(OwnVQA):
    """Questions in a copy of the hub: image (bytes inside, or a path), question, answer; else as `OwnVQA`.

    Such copies rarely have ids or answer types: a row is named by its file and its place, and a question is closed if
    it is answered yes or no; each answer is taken as it stands. Nothing is decoded but the image that is asked for, and
    no code of a data set runs.

    Args:
        root: Folder of the copy, such as a snapshot; None: fetch it.
        hub: Its name on the hub, OWNER/NAME; what is fetched goes to the hub's own cache, and is fetched once.
        name: What tables of results call the data; None: as the copy or the folder is called.
        **vqa: As in `VQADataModule`.

    Raises:
        UserError: Neither root nor hub is given, or an argument is out of its range.
    """

    layout = LAYOUT
    no_answers = frozenset()

    def __init__(
        self, root: str | None = None, *, hub: str | None = None, name: str | None = None, **vqa: Unpack[VQAArguments]
    ) -> None:
        given = root if root is not None else hub
        if given is None:
            raise UserError(
                "a copy of the hub: give its folder (--data.root FOLDER) or its name (--data.hub OWNER/NAME)"
            )
        super().__init__(given, name=name or (hub if root is None else None), **vqa)
        self.hub = hub if root is None else None

    def prepare_data(self) -> None:
        """Fetches the copy, in one process a machine."""
        self._read()
        super().prepare_data()

    def _read(self) -> dict[Split, list[VQARecord]]:
        if self.hub is not None and self._published is None:
            self.root = fetch(self.hub, self.title)
        return super()._read()


def fetch(hub: str, title: str) -> Path:
    """The folder of a data set's Parquet files, in the hub's cache; fetched where it is not there yet.

    Raises:
        UserError: huggingface_hub is not installed; the hub cannot be reached, or has no such data set in Parquet.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RevisionNotFoundError
    except ImportError:
        raise UserError(f"{title}: data sets of the hub need huggingface_hub: pip install -e '.[hub]'") from None

    def fetched(revision: str | None) -> Path:
        return Path(
            snapshot_download(
                hub, repo_type="dataset", revision=revision, allow_patterns="*.parquet", etag_timeout=TIMEOUT
            )
        )

    bring = f"bring its folder: --data.root FOLDER, which holds {LAYOUT}"
    try:
        folder = fetched(None)
        if not find_tables(folder):
            folder = fetched(CONVERTED)
    except RevisionNotFoundError as error:
        raise UserError(f"{title}: '{hub}' on the Hugging Face hub has no Parquet files; {bring}") from error
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{title}: '{hub}' cannot be fetched from the Hugging Face hub ({why}); {bring}") from error
    return folder
