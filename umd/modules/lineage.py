"""What weights were trained on, through all stages: a table's protocol is that of the training, not of the test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from umd.checkpoints import SETTINGS_KEY, read_checkpoint, to_plain
from umd.files import UserError
from umd.protocols import UNKNOWN, HasDescription, Training

LINEAGE_KEY: Final = "lineage"
"""Where a checkpoint's settings hold its `Training`s, the last one first."""

_LOOSER: Final = ("disjoint", "hub", "clean", "paper")
"""Each protocol sees more of the test than those before it: its images, more questions about them, then its twins."""

# Settings that say where, from what, and how it looks, or what chance decides: not what is trained.
_APART: Final = (
    *("root", "cache", "num_workers", "init_from", "vision_weights", "text_weights", "default_root_dir", "logger"),
    *("enable_progress_bar", "enable_model_summary", "enable_checkpointing", "log_every_n_steps", "dirpath"),
)

_NAMED_WITH_FOLDERS: Final = ("exclude_images_of", "also_train_on")
"""Settings that name data sets as CLASS=FOLDER, of which the class alone counts."""


def sees_more(earlier: str, now: str) -> bool:
    """Whether a training under one protocol may have seen what another one's must not; so where one is not known."""
    if earlier in _LOOSER and now in _LOOSER:
        return _LOOSER.index(earlier) > _LOOSER.index(now)
    return earlier != now


def this_training(stage: str, data: object) -> Training:
    """The training that is about to begin, on what the data module says of itself."""
    facts = dict(data.description) if isinstance(data, HasDescription) else {}
    return Training(
        stage=stage,
        data=facts.pop("data", None),
        protocol=facts.pop("protocol", None),
        facts=facts,
        seed=None,
        settings=None,
        path=None,
        sha256=None,
    )


def lineage_in(checkpoint: Mapping[str, Any]) -> list[Training]:
    """The trainings behind a checkpoint's weights, its own first.

    A checkpoint from before this was noted says what data it was trained on last, not what lies behind: its protocol
    is `UNKNOWN`, unless nothing lies behind and its data has no protocols.
    """
    settings: Mapping[str, Any] = checkpoint.get(SETTINGS_KEY, {})
    if LINEAGE_KEY in settings:
        return [cast(Training, dict(training)) for training in settings[LINEAGE_KEY]]
    data = settings.get("data", {}).get("init_args")
    plain = data is not None and "protocol" not in data and not settings.get("started_from", {}).get("init_from")
    return [
        Training(
            stage=settings.get("model", {}).get("class_path"),
            data=None,
            protocol=None if plain else UNKNOWN,
            facts={},
            seed=settings.get("seed_everything"),
            settings=None,
            path=None,
            sha256=None,
        )
    ]


def lineage_behind(path: str | Path) -> list[Training]:
    """The trainings behind one that starts from a checkpoint, with the file that it was.

    Raises:
        UserError: no such file, or no checkpoint.
    """
    nearest, *further = lineage_in(read_checkpoint(path))
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return [{**nearest, "path": str(path), "sha256": digest}, *further]


def noted(own: Training, settings: Mapping[str, Any]) -> Training:
    """A training with its seed, and the digest of its settings, from what a checkpoint holds of them."""
    told = {part: _without_chance(settings.get(part)) for part in ("model", "data", "trainer")}
    told["facts"] = own["facts"]
    text = json.dumps(to_plain(told), sort_keys=True)
    return {
        **own,
        "seed": settings.get("seed_everything"),
        "settings": hashlib.sha256(text.encode()).hexdigest(),
    }


def protocol_on(lineage: Sequence[Training], data: str | None) -> str | None:
    """The loosest protocol under which these trainings saw a data set; None where they did not, or it has none.

    `UNKNOWN` where one of them does not say what it saw.
    """
    protocols = [training["protocol"] for training in lineage if training["data"] in (data, None)]
    if UNKNOWN in protocols:
        return UNKNOWN
    loosest: str | None = None
    for protocol in protocols:
        if protocol is not None and (loosest is None or sees_more(protocol, loosest)):
            loosest = protocol
    return loosest


def check_protocol(behind: Sequence[Training], own: Training, path: str) -> None:
    """Refuse to go on, under one protocol, from weights that have seen more than it allows.

    Args:
        behind: the trainings behind the weights.
        own: the training that is about to begin.
        path: the checkpoint, for the message.

    Raises:
        UserError: names the training that has.
    """
    now = own["protocol"]
    for training in behind:
        earlier = training["protocol"]
        if now is None or earlier in (None, UNKNOWN) or training["data"] != own["data"]:
            continue
        if sees_more(str(earlier), now):
            raise UserError(
                f"'{path}' was trained on {training['data']} under protocol {earlier} ({training['stage']}), "
                f"and has seen more than protocol {now} allows: train under {earlier} too (--data.protocol {earlier}), "
                f"or start from a checkpoint that was trained under {now}"
            )


def heading(lineage: Sequence[Training], tested: Mapping[str, str]) -> tuple[str, list[str]]:
    """Title and first notes of a test: what was tested, trained on what.

    The notes on training and validation rows are those of the training, whatever is read for the test.

    Args:
        lineage: the trainings behind the weights, the last one first; none where nothing tells.
        tested: what the data module of the test says of itself.
    """
    facts = dict(tested)
    data, protocol = facts.pop("data", None), facts.pop("protocol", None)
    title = data or "unnamed data"
    own = lineage[0] if lineage else None
    behind = _told_of(lineage[1:])
    trained = protocol_on(lineage, data) if lineage else UNKNOWN
    elsewhere = own is not None and None not in (own["data"], data) and own["data"] != data
    if elsewhere and own is not None:
        title += f", trained on {own['data']}" + (f" under {own['protocol']}" if own["protocol"] else "")
    if protocol is not None:
        if trained == protocol and not elsewhere:
            return f"{title}, protocol {protocol}", _notes(own["facts"] if own else {}, facts) + behind
        if trained == UNKNOWN:
            title += ", training protocol unknown"
        elif trained is not None:
            title += f", {'earlier stages ' if elsewhere else ''}trained under {trained}"
        title += f", tested on {protocol}'s questions"
        # What the data leaves out under this protocol was not left out of the training.
        facts = {name: value for name, value in facts.items() if name.startswith("test")}
    of_training = own["facts"] if own is not None and not elsewhere else {}
    return title, _notes(of_training, facts) + behind


def _told_of(behind: Sequence[Training]) -> list[str]:
    """What a reader must know of earlier trainings: with how many negatives they contrasted, what they left out."""
    return [
        f"{fact} of {training['stage']}: {training['facts'][fact]}"
        for training in behind
        for fact in ("negatives", "left out")
        if fact in training["facts"]
    ]


def _notes(of_training: Mapping[str, str], of_test: Mapping[str, str]) -> list[str]:
    facts = {name: value for name, value in of_training.items() if not name.startswith("test")} | dict(of_test)
    return [f"{name}: {value}" for name, value in facts.items()]


def _without_chance(settings: Any) -> Any:  # noqa: ANN401 - nested plain values
    if isinstance(settings, Mapping):
        for name in _NAMED_WITH_FOLDERS:
            if named := settings.get(name):
                settings = {**settings, name: [str(one).partition("=")[0] for one in named]}
        return {
            key: _without_chance(value)
            for key, value in settings.items()
            if key not in _APART and not (key == "seed" or key.endswith("_seed"))
        }
    return [_without_chance(value) for value in settings] if isinstance(settings, list | tuple) else settings
