"""What the READMEs name is there, and what they tell to type is understood: nothing is trained."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule

from tests.configs.test_configs import COMMANDS
from tests.readmes import FENCE, LIVING, ROOMS, ROOT, TEXTS, blocks, commands, spans
from umd.checkpoints import SETTINGS_KEY
from umd.commands import train
from umd.commands.added import ConfigFile, with_added_callbacks
from umd.commands.arguments import prepare
from umd.commands.configs import RENAMED
from umd.commands.data import parse as parse_data
from umd.commands.early import value_of
from umd.run.folder import RunFolder
from umd.run.renamed import RENAMED_ARGUMENTS

LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
PATH = re.compile(r"[\w.*{},-]*(/[\w.*{},-]*)+|[\w-]+\.(py|yaml|md|toml)")
IN_A_ROOM = re.compile(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/[\w.*{{}},/-]*")
# What stands before a slash and is no file of this repository: folders of runs and data sets, keys in logs.
ELSEWHERE = (
    *("runs", "results", "checkpoints", ".venv", "shared", ".."),
    *("vqa_rad", "slake", "vqa_med_2019", "roco", "medicat", "melinda", "images", "imgs", "figures", "melinda_images"),
    *("medpix", "rocov2", "splitted_dataset"),
    *("train", "validation", "test", "coordination", "perturbation", "timm"),
)
TOOLS = {
    "answer": "umd.commands.answer",
    "export": "umd.commands.export",
    "score": "umd.commands.score",
    "compare": "umd.commands.compare",
    "convert": "umd.released.convert",
    "serve": "umd.commands.serve",
    "reproduce": "umd.reproduce.command",
}
OF_OTHERS = {"--no-deps"}


def expanded(pattern: str) -> list[str]:
    """`a.{b,c}` as `a.b` and `a.c`."""
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if not braces:
        return [pattern]
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [one for part in braces[1].split(",") for one in expanded(head + part + tail)]


def is_there(path: str, *bases: Path) -> bool:
    return all(any(next(base.glob(one.rstrip("/") or "."), None) for base in bases) for one in expanded(path))


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# Files


def test_all_rooms_have_one() -> None:
    rooms = ("", "configs/", "umd/", "datamodules/", "callbacks/", "umd/reproduce/", "umd/released/", "umd/scoring/")
    assert {f"{room}README.md" for room in rooms} <= set(TEXTS)


def test_the_first_one_is_short() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 130


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    here = (ROOT / name).parent
    for found in LINK.finditer(FENCE.sub("", TEXTS[name])):
        target, _, anchor = found["target"].partition("#")
        if target.startswith("https://"):
            continue
        path = (here / target).resolve() if target else ROOT / name
        assert path.exists() and path.is_relative_to(ROOT), f"{name}: {target} is not there"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in map(slug, headings), f"{name}: {target} has no heading {anchor}"


@pytest.mark.parametrize("name", LIVING)
def test_every_path_that_is_named_exists(name: str) -> None:
    """A path is what is quoted and has a slash or a known ending, and anywhere what begins with one of the rooms."""
    quoted = [word for span in spans(LIVING[name]) for word in span.split() if PATH.fullmatch(word)]
    own = [word for word in quoted if word.split("/")[0] not in ELSEWHERE and not re.match(r"[A-Z]+\b(?!\.)", word)]
    named = {*own, *(found.rstrip(".,") for found in IN_A_ROOM.findall(LIVING[name]))}
    created = {block.file for block in blocks() if block.readme == name}
    bases = (ROOT, (ROOT / name).parent)
    assert [path for path in sorted(named) if path not in created and not is_there(path, *bases)] == []


# Commands


@pytest.fixture(scope="module")
def cli() -> train.UMDCLI:
    """The command line's own parser, made as `umd fit` makes it."""
    made: list[train.UMDCLI] = []

    class Parsing(train.UMDCLI):
        def before_instantiate_classes(self) -> None:
            made.append(self)

        def instantiate_classes(self) -> None:
            pass

        def _run_subcommand(self, subcommand: str) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "cli_for", lambda command: Parsing)  # with the parsers of all commands
        train.run(["fit", "--config", str(ROOT / "configs" / "vqa.yaml")])
    return made[0]


def parsed(cli: train.UMDCLI, words: Sequence[str]) -> Namespace:
    """The settings that a command comes to."""
    found: Namespace = cli.parser.parse_args(prepare(words).typed)[words[0]]
    return found


def write_checkpoint(path: Path, cli: train.UMDCLI) -> None:
    """A file that says of itself what a checkpoint of `runs/STAGE/NAME/...` says: how that run was started."""
    stage, name = path.parts[-4:-2]
    fits = [words[1:] for _, words in commands() if words[:2] == ["umd", "fit"]]
    named = [words for words in fits if value_of("--name", words) == name and f"configs/{stage}.yaml" in words]
    found = parsed(cli, named[0] if named else ["fit", "--config", f"configs/{stage}.yaml"])
    settings = yaml.safe_load(cli._parser("fit").dump(found))
    kept = {key: settings[key] for key in ("model", "data", "trainer", "seed_everything")}
    path.parent.mkdir(parents=True, exist_ok=True)
    empty: dict[str, Any] = {"state_dict": {}, "optimizer_states": [], "lr_schedulers": [], "loops": {}}
    torch.save({SETTINGS_KEY: kept, **empty}, path)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, cli: train.UMDCLI) -> Path:
    """A folder with the files that READMEs give the content of, and with those that their commands read."""
    folder = tmp_path_factory.mktemp("readmes")
    for block in blocks():
        if block.file:
            (folder / block.file).write_text(block.body, encoding="utf-8")
    for dataset in ("vqa_rad", "slake", "vqa_med_2019", "roco", "melinda", "medpix", "rocov2"):
        (folder / "DATA" / dataset).mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        for _, words in commands():
            path = Path(value_of("--ckpt_path", words) or "")
            if path.suffix and not path.exists():
                write_checkpoint(path, cli)
    return folder


@pytest.fixture
def workplace(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the folder where one is, and from which Python imports."""
    monkeypatch.chdir(files)
    monkeypatch.syspath_prepend(files)
    return files


class Understood(Exception):
    """Raised by a tool that has read its options, with its parser."""


def read_options(module: str, options: Sequence[str] | None, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Let a tool read these options, and do no more; without any, all that it has.

    Raises:
        SystemExit: it does not understand them.
    """
    parse = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, given: Sequence[str]) -> NoReturn:
        if options is not None:
            parse(parser, given)
        raise Understood(parser._option_string_actions)

    with monkeypatch.context() as patch, pytest.raises(Understood) as understood:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        import_module(module).main(list(options or ()))
    return set(understood.value.args[0])


def test_each_umd_command_is_understood(
    workplace: Path, cli: train.UMDCLI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = [(readme, words) for readme, words in commands() if words[0] == "umd"]
    assert {words[1] for _, words in seen} >= {
        "fit",
        "test",
        "predict",
        "answer",
        "export",
        "compare",
        "data",
        "reproduce",
        "convert",
    }
    for readme, (_, command, *options) in seen:
        try:
            if command in ("fit", "validate", "test", "predict"):
                parsed(cli, [command, *options])
            elif command == "data":
                parse_data(options)
            elif command == "reproduce":  # the plan says whether there are such rows and data sets
                runs = not {"--dry_run", "--snakefile"}.intersection(options)
                import_module("umd.reproduce").main([*options, *["--dry_run"] * runs])
            else:
                read_options(TOOLS[command], options, monkeypatch)
        except (SystemExit, Exception) as error:
            said = f"{error} {capsys.readouterr().err}"
            pytest.fail(f"{readme}: umd {command} {shlex.join(options)}: {said}")


def test_each_option_that_is_named_exists(workplace: Path, cli: train.UMDCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named in a sentence or a table: of any stage with any data set, or of a tool."""
    known: set[str] = set()
    for config, words in COMMANDS.items():
        if config.startswith("data/") or "/" not in config:
            known |= options_of(parsed(cli, words[1:]))
    known = known.union(*(read_options(module, None, monkeypatch) for module in TOOLS.values()))
    known |= set(re.findall(r'"(--\w+)"', (ROOT / "umd" / "commands" / "data.py").read_text(encoding="utf-8")))
    unknown = []
    for readme, text in LIVING.items():
        for span in spans(text):
            if span.startswith("--"):
                for option in re.findall(r"(?<!\S)(--[\w.-]+)", span):
                    if option not in known | OF_OTHERS:
                        unknown.append(f"{readme}: {option}")
    assert unknown == []


def options_of(settings: Namespace) -> set[str]:
    """All options of these settings, groups of them included, as they are typed."""
    keys = {key.replace("init_args.", "") for key in settings.keys()}
    parents = {key.rsplit(".", count)[0] for key in keys for count in range(1, key.count(".") + 1)}
    return {f"--{key}" for key in keys | parents}


def test_make_targets_and_extras_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    used = {words[1] for _, words in commands() if words[0] == "make"}
    used |= {span.split()[1] for text in LIVING.values() for span in spans(text) if re.match(r"make \w", span)}
    assert used and used <= targets
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = set(re.findall(r"\.\[(\w+)\]", "".join(LIVING.values())))
    assert extras and extras <= set(project["optional-dependencies"])


def test_all_callbacks_that_are_added_are_explained() -> None:
    class Reporting(LightningModule):
        def test_report(self) -> dict[str, Any]:
            return {}

    config = {"trainer": {}, "seed_everything": 0}
    added = [RunFolder, ConfigFile, *map(type, with_added_callbacks("fit", Reporting(), [], config))]
    rows = re.findall(r"^\| `(\w+)` \|", TEXTS["umd/README.md"], re.MULTILINE)
    assert sorted(rows) == sorted(kind.__name__ for kind in added)


# What has moved


def test_what_has_moved_is_where_the_changelog_says() -> None:
    rows = re.findall(r"^\| `([\w./-]+)`[^|]*\| `([\w./-]+)`", TEXTS[".github/CHANGELOG.md"], re.MULTILINE)
    configs = {old: new for old, new in rows if old.startswith("configs/")}
    assert configs == {f"configs/{old}": f"configs/{new}" for old, new in RENAMED.items()}
    modules = {old: new for old, new in rows if old.split(".")[0] in ("umd", "callbacks", "datamodules")}
    assert modules
    for old, new in modules.items():
        assert importable(new), f"{new} (was {old}) is not there"
    options = {old: new for old, new in rows if old.startswith("--")}
    renamed = {name: now for arguments in RENAMED_ARGUMENTS.values() for name, now in arguments.items()}
    assert {old.split(".")[-1]: new.split(".")[-1] for old, new in options.items()} == renamed


def importable(name: str) -> bool:
    """Whether this is a module, or what a module defines."""
    try:
        import_module(name)
        return True
    except ModuleNotFoundError:
        module, _, rest = name.rpartition(".")
        return bool(module) and importable(module) and hasattr(import_module(module), rest)
