"""Where things are on the page, and what happens when they are used; gradio is known here and in `server` alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio

from umd import NOTICE
from umd.files import UserError
from umd.inference import Model
from umd.inference.explanation import Explains, Method
from umd.web.asking import MOST_CHARACTERS, MOST_TEXTS, ask
from umd.web.browsing import Chosen, Kind, TestQuestions, Verdict
from umd.web.shown import escaped, remark, trouble

WAITING = 32
"""Events that wait for their turn; more are refused, and the page says so."""

FONTS = ("system-ui", "sans-serif")
HERE = Path(__file__).parent
QUESTIONS = ("What is shown in this image?", "Is there a lesion?", "Where is the lesion?", "Is this normal?")
METHODS = [("attention: what is looked at", "attention"), ("gradient: what speaks for the answer", "gradient")]

LIVE = "element.setAttribute('aria-live', 'polite');"
"""So that a screen reader says what has changed."""

OPENS = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-number]');
  if (!card) return;
  element.querySelectorAll('[aria-current]').forEach((other) => other.removeAttribute('aria-current'));
  card.setAttribute('aria-current', 'true');
  trigger('select', { number: Number(card.dataset.number) });
});
"""
SHOW = "() => document.getElementById('{name}').scrollIntoView({{ behavior: 'smooth', block: 'nearest' }})"
"""On a phone the answer is below what was touched."""

TEXTS = {
    "answering": ("Question", "Write one, or pick one below. Enter asks."),
    "classification": ("Text", "What is known beside the image, such as its caption; may be left empty."),
    "retrieval": ("Texts", f"What to choose from, one a line, up to {MOST_TEXTS}."),
}


def layout(model: Model, tests: TestQuestions | None) -> gradio.Blocks:
    """The page.

    Args:
        model: answers.
        tests: a data set's test questions, for a second tab.
    """
    page = gradio.Blocks(title="umd: ask about an image", analytics_enabled=False)
    with page:
        gradio.HTML(head(model))
        if tests is None:
            asking(model, QUESTIONS)
        else:
            with gradio.Tab("Ask"):
                asking(model, tests.common(len(QUESTIONS)))
            with gradio.Tab(f"Test questions of {tests.title}"):
                browsing(tests, page)
    # One event at a time computes, whoever asks.
    page.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    return page


def look() -> dict[str, Any]:
    """Fonts, colours and measures, none of them from elsewhere."""
    theme = gradio.themes.Default(primary_hue="blue", font=FONTS, font_mono=("ui-monospace", "monospace")).set(
        button_primary_background_fill="*primary_600",  # what is white on it, or grey on white, can be read
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )
    return {"theme": theme, "css": (HERE / "page.css").read_text(encoding="utf-8")}


def head(model: Model) -> str:
    """What this is, and what it is not."""
    settings = model.settings
    knows = {"answering": "answers", "classification": "classes"}.get(settings.task)
    number = f" chooses among {len(settings.names):,} {knows}." if knows and settings.names else "."
    return (
        f'<header class="umd-head"><h1>Ask about an image</h1><p><strong>{escaped(NOTICE)}</strong> '
        f"{escaped(settings.stage)}{number} Images are read in memory; no file of them is kept.</p></header>"
    )


def asking(model: Model, questions: Sequence[str]) -> None:
    """The part where an image is dropped and a question is asked."""
    task = model.settings.task
    label, hint = TEXTS[task]
    explains = isinstance(model.network, Explains)
    with gradio.Row(equal_height=False):
        with gradio.Column(scale=2, min_width=300):
            image = gradio.HTML(
                html_template=(HERE / "choose.html").read_text(encoding="utf-8"),
                js_on_load=(HERE / "choose.js").read_text(encoding="utf-8"),
            )
            if task == "answering":
                text = gradio.Textbox(label=label, info=hint, max_length=MOST_CHARACTERS)
                with gradio.Row(elem_classes="umd-picks"):
                    for question in questions:
                        pick = gradio.Button(question, size="sm", min_width=0)
                        pick.click(None, None, text, js=f"() => {question!r}")
            else:
                text = gradio.Textbox(label=label, info=hint, lines=4)
            method = gradio.Radio(METHODS, value="attention", label="Show where it looks by", visible=explains)
            button = gradio.Button("Ask", variant="primary")
        with gradio.Column(scale=3, min_width=300, elem_id="umd-answered"):
            answer = gradio.HTML(remark("The answer will be here."), js_on_load=LIVE)

    def answered(image: str | None, text: str | None, method: Method) -> str:
        return said(lambda: ask(model, image, text, method))

    asked = gradio.on(
        [button.click, text.submit], answered, [image, text, method], answer, concurrency_id="model", api_name="ask"
    )
    asked.then(None, js=SHOW.format(name="umd-answered"))


def browsing(tests: TestQuestions, page: gradio.Blocks) -> None:
    """The part where a data set's questions are listed, and opened."""
    with gradio.Row():
        verdict = gradio.Radio(["all", "wrong", "right"], value="all", label="Answers")
        kind = gradio.Radio(["all", "open", "closed"], value="all", label="Questions")
        kinds = gradio.Dropdown(["all", *tests.types], value="all", label="Type")
        number = gradio.Number(1, label="Page", precision=0, minimum=1, step=1)
    with gradio.Row(equal_height=False):
        with gradio.Column(scale=2, min_width=300):
            cards = gradio.HTML(js_on_load=OPENS)
        with gradio.Column(scale=3, min_width=300, elem_id="umd-opened"):
            opened = gradio.HTML(remark("Choose a question: its answer is explained here."), js_on_load=LIVE)

    def listed(verdict: Verdict, kind: Kind, type: str, page: int | None) -> str:
        return said(lambda: tests.page(Chosen(verdict, kind, type), page or 1))

    def first(verdict: Verdict, kind: Kind, type: str) -> tuple[str, int]:
        return listed(verdict, kind, type, 1), 1

    def opened_one(event: gradio.EventData) -> str:
        return said(lambda: tests.opened(event.number))

    filters = [verdict, kind, kinds]
    gradio.on([verdict.input, kind.input, kinds.input], first, filters, [cards, number], concurrency_id="list")
    page.load(listed, [*filters, number], cards, concurrency_id="list")
    gradio.on([number.input, number.submit], listed, [*filters, number], cards, concurrency_id="list")
    cards.select(opened_one, None, opened, concurrency_id="model").then(None, js=SHOW.format(name="umd-opened"))


def said(what: Callable[[], str]) -> str:
    """What there is to show; a user's mistake in a line."""
    try:
        return what()
    except UserError as error:
        return trouble(str(error))
