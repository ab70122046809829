"""What reaches the page's server, and what does not; no server is started."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

import pytest

from umd.web import guard
from umd.web.guard import ASK, LISTEN, MEGABYTE, MOST_BYTES, UNHEARD, UPLOAD, Guard, Message

HOSTS = frozenset({"127.0.0.1", "localhost"})
FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}


class Behind:
    """The application that is guarded: keeps what reaches it."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, bytes]] = []

    async def __call__(self, scope: Message, receive: guard.Receive, send: guard.Send) -> None:
        body = (await receive())["body"] if scope["method"] == "POST" else b""
        self.reached.append((scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


async def request(
    guarded: Guard, method: str, path: str, chunks: Iterable[bytes] = (b"",), query: str = "", **headers: str
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Status, headers and content of the reply."""
    ahead = list(chunks)
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": ahead.pop(0), "more_body": bool(ahead)}

    async def send(message: Message) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:7860", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope = {"type": "http", "method": method, "path": path, "query_string": query.encode()}
    scope["headers"] = [(name.encode(), value.encode()) for name, value in given.items()]
    await guarded(scope, receive, send)
    replied = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], replied, json.loads(sent[1]["body"])


def event(*data: object, **more: object) -> bytes:
    return json.dumps({"data": data, "session_hash": "mine", "fn_index": 0, **more}).encode()


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/", b"", {}, 200),
        ("GET", "/assets/index-1a.js", b"", {"origin": "http://127.0.0.1:7860"}, 200),
        ("GET", LISTEN, b"", {"host": "localhost"}, 200),
        ("POST", UPLOAD, b"any bytes", {}, 200),
        ("POST", ASK, event("data:image/png;base64,AA", "Where?", [1, None, True]), {}, 200),
        # Addresses of the framework that read, fetch or write what a client names.
        ("GET", "/gradio_api/file=/etc/passwd", b"", {}, 404),
        ("GET", "/gradio_api/proxy=http://127.0.0.1:1/", b"", {}, 404),
        ("GET", "/assets/../../../etc/passwd", b"", {}, 404),
        ("GET", "/static//etc/passwd\0", b"", {}, 404),
        ("GET", "/config", b"", {}, 404),
        ("POST", "/gradio_api/upload", b"", {}, 404),
        ("POST", "/gradio_api/component_server", b"{}", {}, 404),
        ("POST", "/gradio_api/run/predict", event("x"), {}, 404),
        ("PUT", "/", b"", {}, 404),
        # Other sites, and names that were made to point here.
        ("GET", "/", b"", {"host": "evil.example"}, 421),
        ("GET", "/", b"", {"host": "[::"}, 400),
        ("POST", ASK, event("x"), {"origin": "http://evil.example"}, 403),
        ("POST", UPLOAD, b"", {"origin": "null"}, 403),
        # Events that are none of the page's.
        ("POST", ASK, event(FILE), {}, 400),
        ("POST", ASK, event([["x", [FILE]]]), {}, 400),
        ("POST", ASK, event({"url": "http://127.0.0.1:1/"}), {}, 400),
        ("POST", ASK, event("x", data="x"), {}, 400),
        ("POST", ASK, event("x", session_hash=None), {}, 400),
        ("POST", ASK, b"[1]", {}, 400),
        ("POST", ASK, b"\xff{", {}, 400),
        ("POST", ASK, b"[" * 100_000, {}, 400),
        ("POST", UPLOAD, b"", {"content_length": str(MOST_BYTES[UPLOAD] + 1)}, 413),
        ("POST", UPLOAD, b"", {"content_length": "-1"}, 413),
    ],
)
def test_what_passes(method: str, path: str, body: bytes, headers: dict[str, str], status: int) -> None:
    behind = Behind()
    found, replied, content = asyncio.run(request(Guard(behind, HOSTS), method, path, [body], **headers))
    assert found == status and behind.reached == ([(path, body)] if status == 200 else [])
    assert ("error" in content) == (status != 200)
    assert "connect-src 'self'" in replied["content-security-policy"]


def test_a_body_is_read_up_to_its_limit_whatever_its_head_says() -> None:
    behind = Behind()
    chunks = [b"x" * MEGABYTE] * (MOST_BYTES[UPLOAD] // MEGABYTE)
    whole = asyncio.run(request(Guard(behind, HOSTS), "POST", UPLOAD, chunks))
    more = asyncio.run(request(Guard(behind, HOSTS), "POST", UPLOAD, [*chunks, b"x"]))
    assert (whole[0], more[0]) == (200, 413) and "up to 64 MiB" in more[2]["error"]
    assert [len(body) for _, body in behind.reached] == [MOST_BYTES[UPLOAD]]


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "SECONDS_FOR_A_BODY", 0.01)

    async def never() -> Message:
        await asyncio.sleep(60)
        return {}

    with pytest.raises(guard.Refused, match="too long"):
        asyncio.run(guard.read(never, 1))


def test_who_never_fetches_an_answer_gets_no_more_of_them() -> None:
    behind = Behind()

    async def story() -> list[int]:
        guarded = Guard(behind, HOSTS)
        found = [(await request(guarded, "POST", ASK, [event("x")]))[0] for _ in range(UNHEARD + 1)]
        found.append((await request(guarded, "POST", ASK, [event("x", session_hash="other")]))[0])
        await request(guarded, "GET", LISTEN, query="session_hash=mine")
        found.append((await request(guarded, "POST", ASK, [event("x")]))[0])
        return found

    assert asyncio.run(story()) == [*[200] * UNHEARD, 429, 200, 200]


def test_any_name_will_do_where_the_page_is_served_to_others() -> None:
    status, _, _ = asyncio.run(request(Guard(Behind(), None), "GET", "/", host="ward-7.example"))
    assert status == 200
