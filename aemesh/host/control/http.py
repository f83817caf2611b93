"""HTTP on a control socket: the server, and what requests and answers have in common.

It knows no request: a role brings its own application.  Who may use it: the owner of
the state directory.  The socket lies in a folder of mode 0700, and where the system
tells who connects (Linux) others are dropped, so that a socket moved or bind-mounted
elsewhere opens no door.
"""

from __future__ import annotations

import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
)
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import msgspec
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aemesh import errors, limits
from aemesh.errors import AemeshError, BugError, UsageError
from aemesh.host.control.duplex import LINE, Line
from aemesh.host.control.sockets import is_ours, listening
from aemesh.tasks.blame import blamed

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)
MEDIA_LINES = "application/x-ndjson"
MEDIA_EVENTS = "text/event-stream"

# Which HTTP status a class of error has; the first that fits.  Clients of ours
# read the body; the status is for proxies and for people with curl.
_STATUS: tuple[tuple[type[AemeshError], int], ...] = (
    (errors.UsageError, 400),
    (errors.UnknownNameError, 404),
    (errors.SettingsError, 409),
    (errors.RefusedError, 403),
    (errors.PeerError, 502),
    (errors.UnreachableError, 504),
    (errors.NobodyFoundError, 504),
    (errors.GroupIncompleteError, 503),
)


async def serve_app(
    app: Starlette,
    socket_path: Path,
    *,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` at `socket_path` until cancelled; the socket's file goes with it."""
    server = Server(app)
    with listening(socket_path) as sock:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(trio.serve_listeners, server.serve, [listener])
                task_status.started(socket_path)
                await trio.sleep_forever()
            finally:
                server.hang_up()


class Server:
    """One connection after another for hypercorn, which does the HTTP.

    `hypercorn.trio.serve` takes no connection that was accepted elsewhere, and
    so could not ask who connects; its parts can be used one by one.
    """

    def __init__(self, app: Starlette) -> None:
        self._app = ASGIWrapper(cast("ASGIFramework", app))
        self._config = Config()
        self._config.errorlog = None
        self._config.accesslog = None
        self._config.include_server_header = False
        self._streams: set[trio.SocketStream] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; what goes wrong with it ends only this one."""
        if not is_ours(stream.socket):
            log.warning("dropped a connection of another user to the control socket")
            await trio.aclose_forcefully(stream)
            return
        self._streams.add(stream)
        try:
            with trio.CancelScope() as scope:
                line = Line(stream.socket, scope)
                context, state = WorkerContext(None), ConnectionState({LINE: line})
                await TCPServer(self._app, self._config, context, state, stream)  # type: ignore[arg-type]  # it takes plain streams too
        except Exception:
            log.exception("a connection to the control socket broke")
        finally:
            self._streams.discard(stream)
            stream.socket.close()  # hypercorn's own close is one that can be cancelled

    def hang_up(self) -> None:
        """Close each connection: hypercorn's writes are shielded, and a client that
        has stopped reading would hold the whole agent up.

        Shown by test_a_client_that_reads_nothing_does_not_hold_up_the_end.
        """
        for stream in self._streams:
            stream.socket.close()


# --- requests and answers ---------------------------------------------------

Endpoint = Callable[[Request], Awaitable[ASGIApp]]
_T = TypeVar("_T")


def make_app(table: Iterable[tuple[str, str, Endpoint]]) -> Starlette:
    """Return the ASGI application of these methods, paths and endpoints."""
    return Starlette(
        routes=[
            Route(path, partial(_answer, endpoint), methods=[method])
            for method, path, endpoint in table
        ],
        exception_handlers={HTTPException: _no_such_route},
    )


async def _answer(endpoint: Endpoint, request: Request) -> ASGIApp:
    """Call an endpoint; its errors become an answer."""
    try:
        return await endpoint(request)
    except Exception as error:  # noqa: BLE001 - per request; told and logged
        return error_answer(error)


def error_answer(error: Exception) -> Response:
    """Return an error as an answer."""
    told = told_of(error)
    return json_answer(told.fields(), status=_status_of(told))


def told_of(error: Exception) -> AemeshError:
    """Return what a client is told: our sentence, or that we have a bug."""
    ours = blamed(error)
    if ours is not None:
        return ours
    log.error("a request to the control socket met a bug", exc_info=error)
    return BugError(
        "the agent met a bug of its own",
        why=type(error).__name__,
        hint="its log has the traceback; please report it",
    )


def _status_of(error: AemeshError) -> int:
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


async def _no_such_route(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 404
    what = f"there is no {request.method} {request.url.path}"
    return json_answer(UsageError(what).fields(), status=code)


def json_answer(value: object, *, status: int = 200) -> Response:
    """Return a value as an answer."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def bytes_of(request: Request, *, most: int) -> bytes:
    """Return the request's body as it is, of at most so many bytes."""
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > most:
                msg = f"a request has at most {most} bytes"
                raise UsageError(msg)
    return bytes(body)


async def body_of(request: Request, kind: type[_T]) -> _T:
    """Return the request's body, of at most `limits.CONTROL_BODY_BYTES`."""
    body = await bytes_of(request, most=limits.CONTROL_BODY_BYTES)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        msg = "the request cannot be read"
        raise UsageError(msg, why=errors.quoted(str(error))) from None


# --- streams ----------------------------------------------------------------


class Stream:
    """A response whose body comes piece by piece, and ends when the client goes.

    Unlike starlette's own it closes its generator at once, so that what feeds it
    (a command on every member) ends with the client too.
    """

    def __init__(self, media_type: str, pieces: AsyncGenerator[bytes, None]) -> None:
        self._head = Response(media_type=media_type)
        del self._head.headers["content-length"]
        self._head.headers["cache-control"] = "no-store"
        self._pieces = pieces

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and pieces, as ASGI has it."""
        # The generator may have a nursery of its own, which is to end before ours.
        async with trio.open_nursery() as nursery, aclosing(self._pieces):
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            await send(
                {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": self._head.raw_headers,
                }
            )
            async for piece in self._pieces:
                await send(
                    {"type": "http.response.body", "body": piece, "more_body": True}
                )
            await send({"type": "http.response.body", "body": b""})
            nursery.cancel_scope.cancel()


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


@asynccontextmanager
async def closing(items: AsyncIterator[_T]) -> AsyncIterator[AsyncIterator[_T]]:
    """Close a generator at the end of the block; other iterators need nothing."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


async def as_lines(pieces: AsyncIterator[object]) -> AsyncGenerator[bytes, None]:
    """Yield each value as a line of JSON; an error is the last one."""
    try:
        async with closing(pieces):
            async for piece in pieces:
                yield msgspec.json.encode(piece) + b"\n"
    except Exception as error:  # noqa: BLE001 - per stream; told and logged
        yield msgspec.json.encode(told_of(error).fields()) + b"\n"
