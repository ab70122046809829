"""The page as a server on this machine."""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from dataclasses import asdict

import anyio
import gradio
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from umd.files import UserError
from umd.inference import Model
from umd.web.asking import prepare
from umd.web.browsing import TestQuestions
from umd.web.guard import UPLOAD, Guard
from umd.web.layout import layout, look

SESSIONS = 16
"""Open pages whose last event is remembered; of an older one nothing is lost, since the page itself holds all of it."""

CONNECTIONS = 200
"""More at once are turned away."""


def application(model: Model, tests: TestQuestions | None, hosts: frozenset[str] | None) -> Guard:
    """The page's server, behind its guard.

    Args:
        model: answers.
        tests: a data set's test questions, for a second tab.
        hosts: the names under which it may be called; None: any.
    """
    server = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    one_at_a_time = anyio.CapacityLimiter(1)

    @server.post(UPLOAD)
    async def upload(request: Request) -> JSONResponse:
        content = await request.body()
        try:
            prepared = await anyio.to_thread.run_sync(prepare, model, content, limiter=one_at_a_time)
        except UserError as error:
            return JSONResponse({"error": str(error)}, status_code=422)
        return JSONResponse(asdict(prepared))

    page = layout(model, tests)
    page.state_session_capacity = SESSIONS
    gradio.mount_gradio_app(
        server, page, path="/", show_error=False, run_history=False, footer_links=[], ssr_mode=False, mcp_server=False,
        pwa=False, enable_monitoring=False, max_file_size=0, **look(),
    )  # fmt: skip
    return Guard(server, hosts)


def run(app: Guard, listening: socket.socket) -> None:
    """Serve the page until it is interrupted."""
    settings = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, and tidies up
    with suppress(KeyboardInterrupt):
        uvicorn.Server(settings).run(sockets=[listening])
