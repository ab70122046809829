"""Whatever stands in a data set's files: rows, or an error that names the file; and no image outside the root."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from datamodules import MELINDA, SLAKE, VQARAD, ImageTextDataModule, RadiologyCaptions, VQAMed2019
from datamodules.answers import normalize_answer
from datamodules.collate import tokenize
from datamodules.problems import Problems
from datamodules.tokenization import build_tokenizer
from datamodules.vqa_rad import SINGLE_FILE

few = settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SECRET = "secret.png"
PATHS = [
    "a.png",
    f"../{SECRET}",
    f"../../{SECRET}",
    f"../../../../{SECRET}",
    f"x/../../{SECRET}",
    "{outside}",
    "\0",
    "",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image that nothing in the data set beside it may reach."""
    outside = tmp_path_factory.mktemp("outside")
    Image.new("L", (8, 8)).save(outside / SECRET)
    return outside


def texts(folder: Path) -> SearchStrategy[str]:
    """Any text, halves of surrogate pairs included, and the paths that an attacker would try."""
    paths = [path.format(outside=folder / SECRET) for path in PATHS]
    return st.text(st.characters(exclude_categories=[]), max_size=12) | st.sampled_from(
        [*paths, "yes", "\ud800", "\udc80x"]
    )


def values(folder: Path) -> SearchStrategy[Any]:
    """Anything that JSON can hold."""
    plain = st.none() | st.booleans() | st.integers() | st.floats() | texts(folder)
    return st.recursive(
        plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
    )


def mutated_rows(folder: Path, good: dict[str, Any]) -> SearchStrategy[list[Any]]:
    """Rows of which one key, or any, is missing or holds anything, among entries that are no rows."""
    without = st.sampled_from(sorted(good)).map(lambda key: {name: good[name] for name in good if name != key})
    change = st.tuples(st.sampled_from(sorted(good)), values(folder)).map(lambda change: good | dict([change]))
    rows = st.fixed_dictionaries({}, optional={key: values(folder) for key in good})
    return st.lists(change | change | change | without | rows | values(folder), max_size=6)


@st.composite
def broken(draw: st.DrawFn, content: bytes) -> bytes:
    """The bytes with some cut out, doubled, overwritten or put in, or written in another encoding."""
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "latin-1", "utf-16", "utf-8-sig"]))
    content = content.decode("utf-8").encode(encoding, "replace")
    for _ in range(draw(st.integers(0, 3))):
        start, length = draw(st.integers(0, len(content))), draw(st.integers(0, 12))
        put = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"\n", b"\r", b",", b"|", b"\t", b"\0", b"[[", b"../"])
        )
        content = content[:start] + put + content[start + length * draw(st.booleans()) :]
    return content


def hold(make: Callable[[], ImageTextDataModule[Any]], root: Path, file: Path) -> None:
    """What must be true of any file, told at length: rows or a ValueError that names the file, nothing else."""
    data = make()
    try:
        splits = data.read(Problems("t"))
    except (ValueError, FileNotFoundError) as error:
        assert file.name in str(error)
        return
    for split in splits:
        try:
            records = data.records(split)
        except ValueError as error:
            assert str(root) in str(error)
            continue
        for record in records:
            located = data.locate(record.image)
            assert isinstance(located, Path)
            image = located.resolve()
            assert image.is_relative_to(root.resolve()) and image.name != SECRET
            assert record.text.strip()
            for text in (record.sample_id, record.text, *record.alternative_texts):
                text.encode()  # halves of surrogate pairs raise here


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8)).save(path)
    return path


VQA_RAD_ROW = {
    "qid": 1,
    "image_name": "a.png",
    "question": "is it?",
    "question_rephrase": "is it so?",
    "question_frame": "NULL",
    "phrase_type": "test_freeform",
    "answer": "yes",
    "answer_type": "CLOSED ",
    "question_type": "PRES",
}
SLAKE_ROW = {
    "qid": 1,
    "img_name": "a.png",
    "question": "was ist \U0001f600?",
    "answer": "ja",
    "answer_type": "OPEN",
    "q_lang": "en",
    "content_type": "Organ",
}
FIGURE = {
    "pdf_hash": "a",
    "fig_uri": "1.png",
    "s2_caption": "A caption.",
    "s2orc_references": ["See it."],
    "radiology": True,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("kind", "name", "image", "row"),
    [(VQARAD, SINGLE_FILE, "images/a.png", VQA_RAD_ROW), (SLAKE, "train.json", "imgs/a.png", SLAKE_ROW)],
)
@pytest.mark.parametrize("protocol", ["clean", "paper"])
def test_json_rows(
    kind: type[VQARAD] | type[SLAKE],
    name: str,
    image: str,
    row: dict[str, Any],
    protocol: Literal["clean", "paper"],
    folder: Path,
) -> None:
    root = folder / kind.__name__ / "deep"
    picture(root / image)
    good = json.dumps([row, row | {"qid": 2, "phrase_type": "freeform", "question": "which \xe4?"}], ensure_ascii=False)

    @few
    @given(mutated_rows(folder, row).map(lambda rows: json.dumps(rows).encode()) | broken(good.encode()))
    def check(content: bytes) -> None:
        (root / name).write_bytes(content)
        hold(lambda: kind(str(root), protocol=protocol, validation_fraction=0), root, root / name)

    check()


EVIL: list[object] = [
    None,
    True,
    0,
    7,
    1.5,
    float("nan"),
    float("inf"),
    10**400,
    "",
    " ",
    "\0",
    "\ud800",
    "a\udc80",
    [],
    ["a"],
    [[]],
    {},
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("value", EVIL, ids=ascii)
def test_any_value_at_any_key(value: object, folder: Path) -> None:
    vqa_rad, slake, medicat = (folder / name / "deep" for name in ("VQARAD", "SLAKE", "medicat"))
    for image in (vqa_rad / "images" / "a.png", slake / "imgs" / "a.png", medicat / "figures" / "a_1.png"):
        picture(image)
    for key in VQA_RAD_ROW:
        (vqa_rad / SINGLE_FILE).write_text(json.dumps([VQA_RAD_ROW, VQA_RAD_ROW | {key: value}]))
        hold(lambda: VQARAD(str(vqa_rad), validation_fraction=0), vqa_rad, vqa_rad / SINGLE_FILE)
    for key in SLAKE_ROW:
        (slake / "train.json").write_text(json.dumps([SLAKE_ROW, SLAKE_ROW | {key: value}]))
        hold(lambda: SLAKE(str(slake), validation_fraction=0), slake, slake / "train.json")
    for key in FIGURE:
        lines = (json.dumps(FIGURE), json.dumps(FIGURE | {key: value}))
        (medicat / "figures.jsonl").write_text("\n".join(lines))
        hold(lambda: RadiologyCaptions(medicat_root=str(medicat)), medicat, medicat / "figures.jsonl")


@pytest.mark.filterwarnings("ignore")
def test_vqa_rad_validation_file(shared_data: Path, folder: Path) -> None:
    root = folder / "split"
    root.mkdir()
    for name in ("trainset.json", "testset.json", "images"):
        (root / name).symlink_to(shared_data / "vqa_rad" / name)

    @settings(few, max_examples=10)
    @given(mutated_rows(folder, VQA_RAD_ROW))
    def check(rows: list[Any]) -> None:
        (root / "valset.json").write_text(json.dumps(rows))
        try:
            found = VQARAD(str(root), annotations="split", protocol="paper").read(Problems("t"))
        except ValueError as error:
            assert "valset.json" in str(error)
            return
        assert len(found["train"]) == 3064

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("split", ["train", "test"])
def test_vqa_med_2019_lines(split: str, folder: Path) -> None:
    root = folder / f"vqa_med_{split}" / "deep"
    picture(root / split / "images" / "a.jpg")
    path = root / split / ("QAPairsByCategory/C1_Modality_train.txt" if split == "train" else "")
    path = path if split == "train" else root / split / "VQAMed2019_Test_Questions_w_Ref_Answers.txt"
    path.parent.mkdir(exist_ok=True)
    field = st.text(max_size=8) | st.sampled_from(
        ["a", "modality", "../../../secret", str(folder / "secret"), "yes", ""]
    )
    lines = st.lists(st.lists(field, min_size=1, max_size=5).map("|".join), max_size=6).map("\n".join)
    good = "a|modality|what is it?|mr\n" if split == "test" else "a|what is it?|mr\n"

    @few
    @given(lines.map(lambda text: text.encode("utf-8", "replace")) | broken(good.encode() * 3))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        hold(lambda: VQAMed2019(str(root), categories=["modality"], validation_fraction=0), root, path)

    check()


@pytest.mark.filterwarnings("ignore")
def test_roco_lines(folder: Path) -> None:
    root = folder / "roco" / "deep"
    path = root / "train" / "radiology" / "captions.txt"
    picture(path.parent / "images" / "ROCO_1.jpg")
    field = st.text(max_size=8) | st.sampled_from(["ROCO_1", "../../../../secret", str(folder / "secret"), ""])
    lines = st.lists(st.lists(field, min_size=1, max_size=3).map("\t".join), max_size=6).map("\n".join)

    @few
    @given(lines.map(lambda text: text.encode("utf-8", "replace")) | broken(b"ROCO_1\tA caption.\n" * 3))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        hold(lambda: RadiologyCaptions(roco_root=str(root)), root, path)

    check()


@pytest.mark.filterwarnings("ignore")
def test_medicat_lines(folder: Path) -> None:
    root = folder / "medicat" / "deep"
    picture(root / "figures" / "a_1.png")
    path = root / "figures.jsonl"
    lines = mutated_rows(folder, FIGURE).map(lambda rows: "\n".join(map(json.dumps, rows)).encode())

    @few
    @given(lines | broken(f"{json.dumps(FIGURE)}\n".encode() * 3))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        hold(lambda: RadiologyCaptions(medicat_root=str(root)), root, path)

    check()


@pytest.mark.filterwarnings("ignore")
def test_melinda_tables(folder: Path) -> None:
    root = folder / "melinda" / "deep"
    picture(root / "melinda_images" / "a.png")
    path = root / "train.csv"
    header = ["figure_file", "caption", "i_meth", "p_meth", "i_meth_label", "p_meth_label"]

    def table(rows: list[list[str]]) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue().encode("utf-8", "replace")

    row = ["a.png", 'A "quoted", caption\nof two lines', "a", "b", "c", "d"]
    rows = st.lists(st.lists(texts(folder), max_size=8) | st.just(row), max_size=4)
    tables = rows.map(lambda rows: table([header, *rows])) | rows.map(table)

    @few
    @given(tables | broken(table([header, row, row])))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        hold(lambda: MELINDA(str(root)), root, path)

    check()


@few
@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2))
def test_an_answer_is_a_text_that_stays_what_it_is(answer: object) -> None:
    once = normalize_answer(answer)
    assert once is None or (once and once == once.strip() and normalize_answer(once) == once)


@few
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_has_tokens(batch: list[str]) -> None:
    fields = tokenize(build_tokenizer("embedded"), batch, 16)
    assert fields["input_ids"].shape[0] == len(batch) and fields["input_ids"].shape[1] <= 16
    assert (fields["attention_mask"].sum(1) >= 2).all()
    assert ((fields["word_ids"] < 0) == fields["special_tokens_mask"]).all()
