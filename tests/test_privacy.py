"""A run keeps no picture unless it is asked to, and talks to nobody."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.configs.test_configs import fit

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(autouse=True)
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every attempt to reach another machine; each fails, as it does where there is no network."""
    found: list[str] = []

    def refuse(*given: Any, **_: Any) -> None:  # noqa: ANN401
        found.append(repr(given))
        raise OSError("there is no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in list(os.environ):
        if name.startswith("HF_"):
            monkeypatch.delenv(name)
    return found


def pictures(runs: Path) -> tuple[list[str], list[Path]]:
    """The image tags in TensorBoard's event files, and the files that have a picture anywhere in them."""
    tags: list[str] = []
    for events in runs.rglob("events.out.tfevents.*"):
        board = EventAccumulator(str(events))
        board.Reload()
        known = board.Tags()
        assert known["scalars"], "the file is one that can be read"
        tags += known["images"]
    return tags, [path for path in runs.rglob("*") if path.is_file() and PNG in path.read_bytes()]


@pytest.mark.parametrize("config", ["pretrain.yaml", "calibrate.yaml", "vqa.yaml"])
def test_a_run_keeps_no_picture_and_makes_no_call(config: str, tmp_path: Path, calls: list[str]) -> None:
    fit(tmp_path / "runs", [config], f"--data.root={tmp_path / 'data'}", "--data.size=12")
    assert pictures(tmp_path / "runs") == ([], [])
    assert calls == []


def test_pictures_are_kept_where_they_are_asked_for(tmp_path: Path, calls: list[str]) -> None:
    configs = ["calibrate.yaml", "callbacks/pictures.yaml"]
    fit(tmp_path / "runs", configs, f"--data.root={tmp_path / 'data'}", "--data.size=12")
    tags, files = pictures(tmp_path / "runs")
    assert tags == ["reconstruction"]
    assert [path.name.split(".")[0] for path in files] == ["events"]
    assert calls == []
