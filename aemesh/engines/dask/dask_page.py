"""Dask's dashboard for connections that come as lines, so that nothing listens for it.

Each is a pair of sockets: tornado serves one end, and the agent's orders read and write
the other. One order is one piece, and its answer comes when the piece has been taken;
so whoever does not read makes the dashboard wait, and nothing else. `dask_head.py`
gives the orders here; it imports nothing of aemesh.

bokeh is loaded when the first page is asked for: it takes a second and some memory.
"""
# distributed is asyncio's, and untyped.
# ruff: noqa: TID251
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

if TYPE_CHECKING:
    from distributed import Scheduler

# One piece is one line, well within what a pipe holds: the scheduler does not wait.
PIECE_BYTES = 32 * 1024
# A browser opens six connections at a time to one place, and one for each live figure.
PAGES = 64
# Pages of state and figures; none that changes anything, and no proxy to elsewhere.
ROUTES = ("distributed.http.scheduler.info", "distributed.http.statics")


@dataclass
class Connection:
    """Our end of a connection to the dashboard."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    other: socket.socket | None  # the dashboard's end, until something is said


class Pages:
    """The connections to the dashboard of one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._server: asyncio.Task[HTTPServer] | None = None
        self._numbers = itertools.count(1)
        self._open: dict[int, Connection] = {}

    async def open(self) -> int:
        """Open a connection, and return its number; raises `RuntimeError`."""
        if find_spec("bokeh") is None:
            msg = "bokeh is not installed where the scheduler runs"
            raise RuntimeError(msg)
        if len(self._open) >= PAGES:
            msg = f"{PAGES} connections to the dashboard are open"
            raise RuntimeError(msg)
        number = next(self._numbers)
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        self._open[number] = Connection(reader, writer, theirs)
        return number

    async def read(self, number: int) -> bytes:
        """Return the next piece that the dashboard says; empty at its end."""
        if number not in self._open:
            return b""
        with contextlib.suppress(OSError):
            return await self._open[number].reader.read(PIECE_BYTES)
        return b""

    async def write(self, number: int, data: bytes) -> None:
        """Say a piece to the dashboard; returns when it was taken."""
        if not data or number not in self._open:
            return
        server = await self._serve()
        connection = self._open.get(number)
        if connection is None:
            return  # it was closed meanwhile
        if connection.other is not None:
            server.handle_stream(IOStream(connection.other), ("", 0))
            connection.other = None
        with contextlib.suppress(OSError):
            connection.writer.write(data)
            await connection.writer.drain()

    def close(self, number: int) -> None:
        """Close a connection; one that is closed stays so."""
        connection = self._open.pop(number, None)
        if connection is not None:
            connection.writer.close()
            if connection.other is not None:
                connection.other.close()

    def close_all(self) -> None:
        """Close those of a master that is gone."""
        for number in list(self._open):
            self.close(number)

    async def _serve(self) -> HTTPServer:
        """Return what serves them, which the first one starts."""
        if self._server is None or (self._server.done() and self._server.exception()):
            self._server = asyncio.create_task(self._start())
        return await asyncio.shield(self._server)

    async def _start(self) -> HTTPServer:
        load = importlib.import_module
        # Not in the loop: it takes as long as many a task.
        dashboard: Any = await asyncio.to_thread(
            load, "distributed.dashboard.scheduler"
        )
        routing: Any = load("distributed.http.routing")
        handlers: Any = load("distributed.http.utils")
        scheduler: Any = self._scheduler
        routes = handlers.get_handlers(
            server=scheduler, modules=list(ROUTES), prefix=""
        )
        application = routing.RoutingApplication(routes)
        server = HTTPServer(application)
        server.port = 0  # type: ignore[attr-defined]  # asked for; there is none
        scheduler.http_application, scheduler.http_server = application, server
        dashboard.connect(application, server, scheduler, prefix="")
        return server
