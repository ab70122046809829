"""What stands before the page's server: few addresses, small bodies, no path or address of a client, no foreign site.

The framework behind it can read and fetch files that a request names. This page needs none of that, so a request that
names any never reaches it.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import SplitResult, parse_qs, urlsplit

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

UPLOAD, ASK, LISTEN = "/image", "/gradio_api/queue/join", "/gradio_api/queue/data"
MEGABYTE = 2**20
MOST_BYTES = {UPLOAD: 64 * MEGABYTE, ASK: 8 * MEGABYTE}
"""What may be posted, and how much."""

READ = re.compile(rf"/(theme\.css|favicon\.ico|(assets|static)/[\w./-]+)?|{LISTEN}")
"""What may be read: the page itself, and what its events say."""

BODIES_AT_ONCE = 4
SECONDS_FOR_A_BODY = 60
UNHEARD = 8
"""Answers that a page may ask for before it fetches one: they are kept for it."""

PAGES = 1000
"""Whose unheard answers are counted."""

HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
"""The browser itself is told to ask nobody else."""


class Refused(Exception):
    """A request that goes no further.

    Attributes:
        status: of HTTP.
        why: in a line.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status, self.why = status, why


class Guard:
    """An ASGI application that passes on to another one what the page needs, and nothing else.

    Args:
        app: the other one.
        hosts: the names under which this server may be called; None: any. A page of somebody else's that has its name
            point here is thus refused.
    """

    def __init__(self, app: App, hosts: frozenset[str] | None) -> None:
        self.app = app
        self.hosts = hosts
        self.bodies = asyncio.Semaphore(BODIES_AT_ONCE)
        self.unheard: Counter[str] = Counter()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or have it answered."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None  # no socket stays open
        send = with_headers(send)
        try:
            check_head(scope, self.hosts)
            if scope["method"] == "POST":
                return await self.post(scope, receive, send)
            if scope["path"] == LISTEN:
                asked = parse_qs(scope["query_string"].decode("latin-1"))
                self.unheard.pop(asked.get("session_hash", [""])[0], None)
            return await self.app(scope, receive, send)
        except Refused as refused:
            return await refuse(refused, send)

    async def post(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on what was posted, once it is read and found plain.

        Raises:
            Refused: it is not.
        """
        async with self.bodies:
            body = await read(receive, MOST_BYTES[scope["path"]])
            if scope["path"] == ASK:
                self.count(page_of(body))
            await self.app(scope, replayed(body, receive), send)

    def count(self, page: str) -> None:
        """Refuse a page that asks and asks, and fetches nothing.

        Raises:
            Refused: it has asked too often.
        """
        self.unheard[page] += 1
        if self.unheard[page] > UNHEARD:
            raise Refused(429, "fetch what was asked before")
        while len(self.unheard) > PAGES:
            del self.unheard[next(iter(self.unheard))]


def check_head(scope: Message, hosts: frozenset[str] | None) -> None:
    """Refuse what the page never asks.

    Raises:
        Refused: says why.
    """
    path, method = scope["path"], scope["method"]
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host, length = headers.get("host", ""), headers.get("content-length", "0")
    if hosts is not None and parts_of(f"//{host}").hostname not in hosts:
        raise Refused(421, "this server is called otherwise")
    if "origin" in headers and parts_of(headers["origin"]).netloc != host:
        raise Refused(403, "this page is asked by itself alone")
    if method == "POST":
        if path not in MOST_BYTES:
            raise Refused(404, "there is nothing here")
        if not length.isdecimal() or int(length) > MOST_BYTES[path]:
            raise Refused(413, too_large(MOST_BYTES[path]))
    elif method not in ("GET", "HEAD") or ".." in path or not READ.fullmatch(path):
        raise Refused(404, "there is nothing here")


def parts_of(address: str) -> SplitResult:
    """The parts of an address.

    Raises:
        Refused: it is none.
    """
    try:
        return urlsplit(address)
    except ValueError as error:
        raise Refused(400, "this is no address") from error


async def read(receive: Receive, most: int) -> bytes:
    """The body of a request.

    Raises:
        Refused: it is too large, takes too long, or its sender has gone.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(SECONDS_FOR_A_BODY):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise Refused(400, "the request broke off")
                body += message.get("body", b"")
                if len(body) > most:
                    raise Refused(413, too_large(most))
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise Refused(408, "the request took too long") from None


def page_of(body: bytes) -> str:
    """The name that the page which sends an event has given itself.

    All that is not plain is refused: a file of a client's choice comes as an object among the data.

    Raises:
        Refused: says why.
    """
    try:
        event = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "this is no JSON") from error
    page = event.get("session_hash") if isinstance(event, dict) else None
    if not isinstance(page, str) or not isinstance(event.get("data"), list):
        raise Refused(400, "this is no event of the page")
    if any(isinstance(value, dict) for value in values(event["data"])):
        raise Refused(400, "an event holds texts and numbers alone")
    return page


def values(data: list[Any]) -> Iterator[object]:
    """What a list holds, and the lists in it."""
    ahead = list(data)
    while ahead:
        value = ahead.pop()
        if isinstance(value, list):
            ahead += value
        else:
            yield value


def too_large(most: int) -> str:
    """The refusal of what is larger."""
    return f"this is too large: up to {most // MEGABYTE} MiB are read"


def replayed(body: bytes, receive: Receive) -> Receive:
    """A body that was read, once more; behind it whatever comes."""
    ahead: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return ahead.pop() if ahead else await receive()

    return again


def with_headers(send: Send) -> Send:
    """What is sent, with `HEADERS`."""
    own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in HEADERS.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *own]}
        await send(message)

    return sending


async def refuse(refused: Refused, send: Send) -> None:
    """Answer with the reason alone."""
    content = json.dumps({"error": refused.why}).encode("utf-8")
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
