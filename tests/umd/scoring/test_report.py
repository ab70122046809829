"""The report: one page that asks for nothing, runs nothing, and shows what files say as text."""

from __future__ import annotations

import base64
import json
import shutil
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import pytest

from datamodules.answers import normalize_answer
from tests.umd.scoring.samples import questions
from umd.scoring.answers import Given, read_answers
from umd.scoring.figure import accuracy_picture
from umd.scoring.report import report
from umd.scoring.scored import Scored, score

EVIL = "<script>alert('out')</script><img src=x onerror=\"alert(1)\">&amp; $x_1$ \x00\x1b[31m </td>"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


def scored(folder: Path, text: str) -> Scored:
    """Two systems, called and answering as `text` says; so are groups and images."""
    rows = [
        {"answer": normalize_answer(text) if place else "yes", "closed": place == 0}
        | {"question": text, "image": f"images/{text}{place // 2}", "question_id": f"{text}{place}"}
        for place in range(6)
    ]
    of = questions(
        rows,
        groups={text: [place % 2 == 1 for place in range(6)]},
        fools={text * 2: ["yes"] * 6},
        notes=(text,),
        sources=(text,),
    )
    answers: dict[str, Given] = {}
    for name in ("_" + text, "other"):
        path = folder / f"{len(answers)}.json"
        given = [{"id": row["question_id"], "answer": text if name == "other" else "yes"} for row in rows]
        path.write_text(json.dumps(given))
        answers[name] = read_answers(path)
    return score(of, answers, normalize_answer)


class Page(HTMLParser):
    """The tags of a page, what their attributes point to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_files_say_is_text(tmp_path: Path) -> None:
    page = Page(report(scored(tmp_path, EVIL), lambda image: PIXEL, most=3, made=EVIL))
    assert "script" not in page.tags and set(page.tags) <= set(Page(report(scored(tmp_path, "mild"))).tags) | {"img"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    pictures = [value or "" for name, value in page.attributes if name in ("src", "href", "action", "data")]
    assert len(pictures) == 4 and all(value.startswith("data:image/") for value in pictures)
    shown = EVIL.replace("\x00", "\ufffd").replace("\x1b", "\ufffd")
    assert page.text.count(shown) > 20


def test_the_page_forbids_what_it_does_not_need(tmp_path: Path) -> None:
    text = report(scored(tmp_path, "mild"))
    assert "default-src 'none'" in text and "http://" not in text and "https://" not in text
    assert "url(" not in text and "@import" not in text


def test_the_tables_hold_the_numbers(tmp_path: Path) -> None:
    result = scored(tmp_path, "mild")
    page = Page(report(result))
    for row in result.rows:
        assert f"{row['accuracy']:.1f}" in page.text
        if not row["fool"]:
            assert f"[{row['image_interval_low']:.1f}, {row['image_interval_high']:.1f}]" in page.text
    assert page.text.count("<") == sum(bool(row["below"]) for row in result.rows) + page.text.count("< 0.001") + 1


def test_labels_of_the_picture_are_no_formulas(tmp_path: Path) -> None:
    address = accuracy_picture(scored(tmp_path, r"$\frac{1}{2}$ _a & <b>").rows)
    assert address.startswith("data:image/svg+xml;base64,")


def test_a_browser_shows_it_and_asks_for_nothing(tmp_path: Path) -> None:
    """Where Chromium is there: no script, no request, no line wider than a narrow window, every picture drawn."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium here")
    path = tmp_path / "report.html"
    path.write_text(report(scored(tmp_path, EVIL), lambda image: PIXEL, most=3), encoding="utf-8")
    with playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width in (380, 1280):
            page = browser.new_page(viewport={"width": width, "height": 800})
            asked: list[str] = []
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on("dialog", lambda dialog, asked=asked: (asked.append("alert"), dialog.dismiss()))
            page.goto(path.as_uri())
            assert [url for url in asked if not url.startswith("data:image/")] == [path.as_uri()]
            assert page.evaluate("document.scripts.length") == 0
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        browser.close()


def test_the_picture_is_sound(tmp_path: Path) -> None:
    svg = base64.b64decode(accuracy_picture(scored(tmp_path, EVIL).rows).split(",", 1)[1])
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg") and not [node for node in root.iter() if node.tag.endswith("script")]
