"""`umd serve`: a page that answers, also in a browser, and goes on doing so whatever is sent to it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import umd
from tests.umd.web.files import png_that_claims
from umd.commands import serve
from umd.commands.serve import bound
from umd.files import UserError

QUESTION = "Where is the lesion?"
STARTS_WITHIN, ANSWERS_WITHIN = 240, 120
"""Seconds, on a machine that does much else."""

WATCHED = """
import sys
def watch(event, given, log=open({log!r}, "a", buffering=1), secret={secret!r}):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        print(event, given[1:] if event in ("socket.connect", "socket.sendto") else given, file=log)
    elif event == "open" and secret in str(given[0]):
        print(event, given[0], file=log)
sys.addaudithook(watch)
from umd.cli import main
main({arguments!r})
"""
"""The command, with a note of each connection that it makes, name that it looks up, and file that it must not read."""


@dataclass(frozen=True)
class Served:
    """A page that is being served; see `served`."""

    port: int
    process: subprocess.Popen[str]
    log: Path
    secret: Path
    temporary: Path
    run_folder: Path

    def images(self) -> list[Path]:
        return sorted((self.run_folder.parents[2] / "data").rglob("*.jpg"))

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        """Status and content of the reply."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=ANSWERS_WITHIN)
        headers = {"Content-Type": "application/json", **headers}
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def page(self) -> dict[str, Any]:
        """What the page tells the browser about itself."""
        status, content = self.request("GET", "/")
        found = re.search(r"window\.gradio_config = (\{.*?\});</script>", content.decode("utf-8"), re.DOTALL)
        assert status == 200 and found
        read: dict[str, Any] = json.loads(found[1])
        return read

    def ask(self, image: Path, question: str, page: str) -> str:
        """What the page shows, as a browser asks for it."""
        status, content = self.request("POST", "/image", image.read_bytes())
        assert status == 200, content
        (number,) = [one["id"] for one in self.page()["dependencies"] if one["api_name"] == "ask"]
        data = [json.loads(content)["image"], question, "attention"]
        status, content = self.request("POST", "/gradio_api/queue/join", event(data, number, page))
        assert status == 200, content
        _, told = self.request("GET", f"/gradio_api/queue/data?session_hash={page}")
        messages = [json.loads(line[5:]) for line in told.decode("utf-8").splitlines() if line.startswith("data:")]
        (shown,) = [message["output"]["data"][0] for message in messages if message["msg"] == "process_completed"]
        return str(shown)

    def right_answer(self, image: Path, question: str) -> str:
        best = umd.load(self.run_folder).answer(image, question).best
        return f'<span class="umd-answer">{best.text}</span><span class="umd-probability">{best.probability:.3f}</span>'


@pytest.fixture(scope="module")
def served(classifier_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="the page needs gradio (extra 'web')")
    folder = tmp_path_factory.mktemp("serve")
    log, secret, temporary = folder / "log", folder / "secret.png", folder / "tmp"
    log.touch()
    Image.new("L", (64, 64)).save(secret)
    temporary.mkdir()
    data = ["--data", "PhantomVQA", "--root", str(classifier_run.parents[2] / "data"), "--data.size", "24"]
    arguments = ["serve", "--ckpt_path", str(classifier_run), "--port", "0", *data]
    command = WATCHED.format(log=str(log), secret=secret.name, arguments=arguments)
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        )
        watchdog = threading.Timer(STARTS_WITHIN, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            first, notice = process.stdout.readline(), process.stdout.readline()
            found = re.search(r"the page is at http://127\.0\.0\.1:(\d+)", first)
            assert found and notice.strip() == umd.NOTICE, (folder / "errors").read_text()
            watchdog.cancel()
            yield Served(int(found[1]), process, log, secret, temporary, classifier_run)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
            assert list(temporary.iterdir()) == []
        finally:
            watchdog.cancel()
            process.kill()


# What can be said at once


def test_mistakes_are_told_before_anything_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = tmp_path / "x.ckpt"
    with pytest.raises(UserError, match="there is no checkpoint"):
        serve.check(["--ckpt_path", str(checkpoint)])
    checkpoint.touch()
    given = ["--ckpt_path", str(checkpoint)]
    with pytest.raises(UserError, match=r"--port is 70000; it must be in 0\.\.65535"):
        serve.check([*given, "--port", "70000"])
    with pytest.raises(UserError, match=r"there is no file 'none\.yaml'"):
        serve.check([*given, "--config", "none.yaml"])
    with pytest.raises(UserError, match="test questions of which data set"):
        serve.check([*given, "--data.root", "x"])
    for wrong, said in (
        (["--hots", "x"], "has no option --hots"),
        (["--dat", "x"], "has no option --dat"),
        (["x"], "no 'x'"),
    ):
        with pytest.raises(UserError, match=said):
            serve.check([*given, *wrong])
    for named in (["--data", "vqa_rad"], ["--config", "configs/data/vqa_rad.yaml"]):
        found = serve.check([*given, "--host", "0.0.0.0", *named, "--data.root", "x"])[1]
        assert found == ["--config", "configs/data/vqa_rad.yaml", "--data.root", "x"]
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs gradio: pip install 'umd\[web\]'"):
        serve.check(given)


def test_a_port_that_is_taken_is_named() -> None:
    with bound("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"cannot serve at 127\.0\.0\.1, port {port}: "):
            bound("127.0.0.1", port)
    with pytest.raises(UserError, match=r"cannot serve at 192\.0\.2\.1: "):
        bound("192.0.2.1", None)


def test_what_has_no_answers_or_no_questions_is_not_served(contrastive_run: Path, classification_run: Path) -> None:
    with pytest.raises(UserError, match="no answers yet"):
        serve.main(["--ckpt_path", str(contrastive_run)])
    data = classification_run.parents[2] / "data"
    with pytest.raises(UserError, match="test questions"):
        serve.main(["--ckpt_path", str(classification_run), "--data", "PhantomClassification", "--data.root", str(data),
                    "--data.size", "24"])  # fmt: skip


# The page itself


@pytest.mark.slow
def test_two_clients_get_their_own_answers(served: Served) -> None:
    first, second = served.images()[:2]
    asked = {"one": (first, QUESTION), "two": (second, "Is this the head?")}
    shown: dict[str, str] = {}

    def client(page: str) -> None:
        for _ in range(3):
            shown[page] = served.ask(*asked[page], page)
            assert served.right_answer(*asked[page]) in shown[page] and asked[page][1] in shown[page]

    with ThreadPoolExecutor(2) as clients:
        list(clients.map(client, asked))
    assert set(shown) == set(asked) and shown["one"] != shown["two"]


def event(data: object, number: int, page: str) -> bytes:
    """What a browser sends; of the events that open something, what is opened is nonsense."""
    sent = {"data": data, "fn_index": number, "session_hash": page, "event_data": {"number": "x"}}
    return json.dumps(sent).encode()


def hostile(served: Served, trap: int) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Requests of which none may be obeyed; `trap` is a port where nobody may call."""
    paths = ["/etc/passwd", str(served.secret), "../../../etc/passwd", f"file://{served.secret}", "\0"]
    paths += [f"http://127.0.0.1:{trap}/x.png", f"http://localhost:{trap}/x.png", "C:\\windows\\win.ini"]
    noise = np.random.default_rng(0).integers(0, 256, 3000, dtype=np.uint8).tobytes()
    image = served.images()[0].read_bytes()
    for content in (b"", noise, b"DICM".rjust(132, b"\0") + noise, image[:300], b"%!PS\n(x) run", b"<svg/>" * 99):
        yield "POST", "/image", content, {}
    yield "POST", "/image", png_that_claims(60_000, 60_000), {}
    yield "POST", "/image", b"x", {"Content-Length": str(10**12)}
    events = [int(one["id"]) for one in served.page()["dependencies"]]
    for path in paths:
        file = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}, "orig_name": "x.png"}
        listed: list[list[object]] = [[file, "x", "attention"], [[file], "x"], [path, QUESTION, "attention"]]
        for number in events:
            yield "POST", "/gradio_api/queue/join", event(listed[number % 3], number, f"paths {number}"), {}
        yield "GET", "/gradio_api/file=" + path.replace("\0", "%00").replace(" ", "%20"), b"", {}
        yield "POST", "/gradio_api/upload", path.encode(), {}
    for data in ([5, {}, []], [None] * 99, [], [[[]], 1e308, "no method"], "x"):
        for number in (*events, -1, 10**9):
            yield "POST", "/gradio_api/queue/join", event(data, number, f"types {number}"), {}
    yield "POST", "/gradio_api/queue/join", b"\xff" * 1000, {}
    yield "GET", "/", b"", {"Host": "evil.example"}
    yield "DELETE", "/", b"", {}


@pytest.mark.slow
def test_a_hundred_hostile_requests_leave_it_serving(served: Served) -> None:
    refused = sent = 0
    with socket.socket() as trap:
        trap.bind(("127.0.0.1", 0))
        trap.listen()
        trap.settimeout(0.1)
        for method, path, body, headers in hostile(served, trap.getsockname()[1]):
            sent += 1
            try:
                status, content = served.request(method, path, body, **headers)
            except (HTTPException, OSError):
                status, content = 0, b""  # it hung up
            refused += status >= 400 or status == 0
            if path == "/image":
                assert status in (413, 422), body[:20]
                assert len(json.loads(content)["error"].splitlines()) == 1
            assert b"root:" not in content and b"Traceback" not in content
        for raw in (b"\x16\x03\x01\0\xff", b"GET / HTTP/9.9\r\n\r\n", b"POST /image HTTP/1.1\r\nHost: 127.0.0.1\r\n"):
            with socket.create_connection(("127.0.0.1", served.port)) as connection:
                connection.sendall(raw)
                sent += 1
        with pytest.raises(TimeoutError):
            trap.accept()
    assert sent >= 100 and refused >= 60
    image = served.images()[0]
    assert served.right_answer(image, QUESTION) in served.ask(image, QUESTION, "after")
    # Nothing was asked of others, the file was not read, and no file is left.
    assert served.log.read_text() == ""
    assert [path for path in served.temporary.rglob("*") if path.is_file()] == []


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here to look at the page with")
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(served: Served, browser: Any, width: int, tmp_path: Path) -> None:  # noqa: ANN401 - no types where there is no playwright
    page = browser.new_page(viewport={"width": width, "height": 844})
    page.set_default_timeout(1000 * ANSWERS_WITHIN)
    called: list[str] = []
    troubles: list[str] = []
    page.on("request", lambda request: called.append(request.url))
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("console", lambda message: troubles.append(message.text) if message.type == "error" else None)
    page.goto(f"http://127.0.0.1:{served.port}/")
    page.get_by_text(umd.NOTICE).first.wait_for()

    # A broken image: one message.
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_text("this image cannot be read").wait_for()
    assert len(troubles) == 1 and "status of 422" in troubles[0]

    # By keyboard alone: to the file, to the question, ask.
    page.locator("body").focus()
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.type") == "file":
            break
    else:
        pytest.fail("the image cannot be reached by keyboard")
    image = served.images()[0]
    page.locator("input[type=file]").set_input_files(image)
    page.get_by_alt_text(f"the chosen image, {image.name}").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.querySelector('textarea, input[type=text]')")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.locator(".umd-reply").wait_for()
    best = umd.load(served.run_folder).answer(image, QUESTION).best
    assert page.locator(".umd-bars li").first.inner_text().split("\n") == [best.text, f"{best.probability:.3f}"]
    assert "With a blank image" in page.locator(".umd-check").inner_text()
    assert page.locator(".umd-figures img").count() == 2
    named = page.locator("body").aria_snapshot()
    for part in ('textbox "Question', 'button "Ask"', 'button "Choose an image', 'radio "attention'):
        assert part in named
    page.screenshot(path=tmp_path / "asked.png", full_page=True)

    # The data set's test questions.
    page.get_by_role("tab", name="Test questions of phantom").click()
    page.locator(".umd-card").first.wait_for()
    page.get_by_text("24 of 24 questions, page 1 of 3").wait_for()
    page.get_by_role("radio", name="closed").click()
    page.get_by_text(re.compile(r"^(?!24)\d+ of 24 questions")).wait_for()
    assert all("(closed, " in truth for truth in page.locator(".umd-card .umd-truth").all_inner_texts())
    page.locator(".umd-card").nth(1).focus()
    page.keyboard.press("Enter")
    page.locator("#umd-opened .umd-reply").wait_for()
    assert page.locator("#umd-opened .umd-truth").inner_text().startswith("accepted: ")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.screenshot(path=tmp_path / "questions.png", full_page=True)
    page.close()
    elsewhere = [url for url in called if not url.startswith((f"http://127.0.0.1:{served.port}/", "data:", "blob:"))]
    assert elsewhere == [] and len(called) > 10 and len(troubles) == 1
    assert served.log.read_text() == ""
