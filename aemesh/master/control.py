"""The control API: a master's facade as HTTP and JSON on a unix socket.

| request | answer |
| --- | --- |
| ``GET /v1/status`` | `StatusView` |
| ``GET /v1/workers`` | list of `WorkerView` |
| ``GET /v1/groups`` | list of `GroupView` |
| ``POST /v1/groups`` | 201; body `OpenGroup` |
| ``DELETE /v1/groups/NAME`` | 204 |
| ``POST /v1/moves`` | `Receipt`; body `Move` |
| ``POST /v1/groups/NAME/connect`` | `ConnectView`, once the engine is up |
| ``POST /v1/groups/NAME/certificates`` | `CertificateView`; body `Certify` |
| ``POST /v1/groups/NAME/delegation`` | `DelegationView`; body `Delegate` |
| ``POST /v1/groups/NAME/exec`` | lines of `OutputView`; body `Exec` |
| ``GET /v1/events?after=N&follow=1`` | server-sent events of `EventView` |
| ``POST /v1/stop`` | 202, and then the master ends |

An error is `AemeshError.fields` as JSON; within a stream, whose status is already
sent, it is the last line (or an event named ``error``).

Who may use it: the owner of the state directory.  The socket lies in a folder of
mode 0700, and where the system tells who connects (Linux) others are dropped, so
that a socket moved or bind-mounted elsewhere opens no door.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Mapping,
)
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

import msgspec
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ASGIFramework, ConnectionState
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from aemesh import errors, limits
from aemesh.errors import AemeshError, BugError, UsageError
from aemesh.master.blame import blamed
from aemesh.master.control_wire import (
    MEDIA_EVENTS,
    MEDIA_LINES,
    Certify,
    Exec,
    Move,
    OpenGroup,
    listening,
)
from aemesh.model.names import GroupName, group_name_untrusted
from aemesh.model.view import Delegate

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.group import Receipt
    from aemesh.model.view import (
        CertificateView,
        ConnectView,
        DelegationView,
        EventView,
        GroupView,
        OutputView,
        StatusView,
        WorkerView,
    )

log = logging.getLogger(__name__)

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


class ControlApi(Protocol):
    """What a master lets its owner see and do; the lines of the table above."""

    def status(self) -> StatusView:
        """Return the master with its workers and groups."""

    def workers(self) -> list[WorkerView]:
        """Return every worker that the master knows of."""

    def groups(self) -> list[GroupView]:
        """Return every group."""

    async def open_group(self, name: GroupName, engine: str) -> None:
        """Make a group; raises `UnknownNameError` for an unknown engine."""

    async def close_group(self, name: GroupName) -> None:
        """End a group, gracefully, and give its workers back."""

    async def move(self, worker: str, group: GroupName) -> Receipt:
        """Take a worker from its group to `group`; return how the leaving went."""

    async def connect(self, group: GroupName) -> ConnectView:
        """Wait until the engine is up and, bounded, for a first member."""

    def certify(
        self, group: GroupName, csr_pem: str, *, life_after: float = 0.0
    ) -> CertificateView:
        """Sign a client's request for a certificate of this group."""

    def delegate(self, group: GroupName, wish: Delegate) -> DelegationView:
        """Hand the user's identity on to jobs that start from now on, or stop that."""

    def exec(
        self,
        group: GroupName,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        *,
        delegate: Delegate | None = None,
    ) -> AsyncIterator[OutputView]:
        """Run a command on each member; each ends with an `OutputView` with a code."""

    def events(self, after: int, *, follow: bool) -> AsyncIterator[EventView]:
        """Yield the history beyond number `after`; with `follow`, what comes then."""

    def stop(self) -> None:
        """Begin to end the master; returns at once."""


def make_app(api: ControlApi) -> Starlette:
    """Return the ASGI application; it knows nothing of sockets."""
    routes = _Routes(api)
    group = "/v1/groups/{name}"
    table: tuple[tuple[str, str, _Endpoint], ...] = (
        ("GET", "/v1/status", routes.status),
        ("GET", "/v1/workers", routes.workers),
        ("GET", "/v1/groups", routes.groups),
        ("POST", "/v1/groups", routes.open_group),
        ("DELETE", group, routes.close_group),
        ("POST", "/v1/moves", routes.move),
        ("POST", f"{group}/connect", routes.connect),
        ("POST", f"{group}/certificates", routes.certify),
        ("POST", f"{group}/delegation", routes.delegate),
        ("POST", f"{group}/exec", routes.exec),
        ("GET", "/v1/events", routes.events),
        ("POST", "/v1/stop", routes.stop),
    )
    return Starlette(
        routes=[
            Route(path, partial(_answer, endpoint), methods=[method])
            for method, path, endpoint in table
        ],
        exception_handlers={HTTPException: _no_such_route},
    )


async def serve_control(
    api: ControlApi,
    socket_path: Path,
    *,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `api` at `socket_path` until cancelled; the socket's file goes with it."""
    app = ASGIWrapper(cast("ASGIFramework", make_app(api)))
    with listening(socket_path) as sock:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(sock))
        server = _Server(app)
        async with trio.open_nursery() as nursery:
            try:
                await nursery.start(trio.serve_listeners, server.serve, [listener])
                task_status.started(socket_path)
                await trio.sleep_forever()
            finally:
                server.hang_up()


class _Server:
    """One connection after another for hypercorn, which does the HTTP.

    `hypercorn.trio.serve` takes no connection that was accepted elsewhere, and
    so could not ask who connects; its parts can be used one by one.
    """

    def __init__(self, app: AppWrapper) -> None:
        self._app = app
        self._config = Config()
        self._config.errorlog = None
        self._config.accesslog = None
        self._config.include_server_header = False
        self._streams: set[trio.SocketStream] = set()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Serve one connection; what goes wrong with it ends only this one."""
        if not _is_ours(stream.socket):
            log.warning("dropped a connection of another user to the control socket")
            await trio.aclose_forcefully(stream)
            return
        self._streams.add(stream)
        context, state = WorkerContext(None), ConnectionState({})
        try:
            await TCPServer(self._app, self._config, context, state, stream)  # type: ignore[arg-type]  # it takes plain streams too
        except Exception:
            log.exception("a connection to the control socket broke")
        finally:
            self._streams.discard(stream)

    def hang_up(self) -> None:
        """Close each connection: hypercorn's writes are shielded, and a client that
        has stopped reading would hold the whole master up.

        Shown by test_a_client_that_reads_nothing_does_not_hold_up_the_end.
        """
        for stream in self._streams:
            stream.socket.close()


def _is_ours(sock: trio.socket.SocketType) -> bool:
    """Whether the other end runs as our user, or as root; true if it is not told."""
    option = getattr(socket, "SO_PEERCRED", None)
    if option is None:  # not Linux: the folder's mode stands alone
        return True
    form = "3i"
    told = sock.getsockopt(socket.SOL_SOCKET, option, struct.calcsize(form))
    _pid, uid, _gid = struct.unpack(form, told)
    return uid in {0, os.geteuid()}


# --- requests and answers ---------------------------------------------------

_Endpoint = Callable[[Request], Awaitable[ASGIApp]]
_T = TypeVar("_T")


async def _answer(endpoint: _Endpoint, request: Request) -> ASGIApp:
    """Call an endpoint; its errors become an answer."""
    try:
        return await endpoint(request)
    except Exception as error:  # noqa: BLE001 - per request; told and logged
        told = _told(error)
        return _json(told.fields(), status=_status_of(told))


def _told(error: Exception) -> AemeshError:
    """Return what a client is told: our sentence, or that we have a bug."""
    ours = blamed(error)
    if ours is not None:
        return ours
    log.error("a request to the control socket met a bug", exc_info=error)
    return BugError(
        "the master met a bug of its own",
        why=type(error).__name__,
        hint="its log has the traceback; please report it",
    )


def _status_of(error: AemeshError) -> int:
    return next((code for kind, code in _STATUS if isinstance(error, kind)), 500)


async def _no_such_route(request: Request, error: Exception) -> Response:
    code = error.status_code if isinstance(error, HTTPException) else 404
    what = f"there is no {request.method} {request.url.path}"
    return _json(UsageError(what).fields(), status=code)


def _json(value: object, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _body(request: Request, kind: type[_T]) -> _T:
    """Return the request's body, of at most `limits.CONTROL_BODY_BYTES`."""
    body = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            body += chunk
            if len(body) > limits.CONTROL_BODY_BYTES:
                msg = f"a request has at most {limits.CONTROL_BODY_BYTES} bytes"
                raise UsageError(msg)
    try:
        return msgspec.json.decode(bytes(body), type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        msg = "the request cannot be read"
        raise UsageError(msg, why=errors.quoted(str(error))) from None


def _group(text: str) -> GroupName:
    try:
        return group_name_untrusted(text)
    except errors.BadMessage as error:
        raise UsageError(error.what) from None


class _Routes:
    """The endpoints: each reads a request, asks the facade, and answers."""

    def __init__(self, api: ControlApi) -> None:
        self._api = api

    async def status(self, _request: Request) -> ASGIApp:
        return _json(self._api.status())

    async def workers(self, _request: Request) -> ASGIApp:
        return _json(self._api.workers())

    async def groups(self, _request: Request) -> ASGIApp:
        return _json(self._api.groups())

    async def open_group(self, request: Request) -> ASGIApp:
        wish = await _body(request, OpenGroup)
        await self._api.open_group(_group(wish.name), wish.engine)
        return _json({}, status=201)

    async def close_group(self, request: Request) -> ASGIApp:
        await self._api.close_group(_group(request.path_params["name"]))
        return Response(status_code=204)

    async def move(self, request: Request) -> ASGIApp:
        wish = await _body(request, Move)
        return _json(await self._api.move(wish.worker, _group(wish.group)))

    async def connect(self, request: Request) -> ASGIApp:
        return _json(await self._api.connect(_group(request.path_params["name"])))

    async def certify(self, request: Request) -> ASGIApp:
        wish = await _body(request, Certify)
        group = _group(request.path_params["name"])
        signed = self._api.certify(group, wish.csr, life_after=wish.life_after)
        return _json(signed)

    async def delegate(self, request: Request) -> ASGIApp:
        wish = await _body(request, Delegate)
        group = _group(request.path_params["name"])
        return _json(self._api.delegate(group, wish))

    async def exec(self, request: Request) -> ASGIApp:
        wish = await _body(request, Exec)
        group = _group(request.path_params["name"])
        pieces = self._api.exec(group, wish.argv, wish.env, delegate=wish.delegate)
        return _Stream(MEDIA_LINES, _as_lines(pieces))

    async def events(self, request: Request) -> ASGIApp:
        # A browser that comes back says where it was in a header of its own.
        asked = request.query_params.get("after", "0")
        after = request.headers.get("last-event-id", asked)
        if not after.isascii() or not after.isdigit():
            msg = f"expected a number after=…, got {errors.quoted(after)}"
            raise UsageError(msg)
        follow = request.query_params.get("follow", "1") != "0"
        events = self._api.events(int(after), follow=follow)
        return _Stream(MEDIA_EVENTS, _as_events(events))

    async def stop(self, _request: Request) -> ASGIApp:
        answer = _json({}, status=202)
        answer.background = BackgroundTask(self._stop_now)
        return answer

    async def _stop_now(self) -> None:
        """Stop once the answer is on its way: the connection ends with the master."""
        self._api.stop()


# --- streams ----------------------------------------------------------------


class _Stream:
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
async def _closing(items: AsyncIterator[_T]) -> AsyncIterator[AsyncIterator[_T]]:
    """Close a generator at the end of the block; other iterators need nothing."""
    try:
        yield items
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()


async def _as_lines(pieces: AsyncIterator[OutputView]) -> AsyncGenerator[bytes, None]:
    try:
        async with _closing(pieces):
            async for piece in pieces:
                yield msgspec.json.encode(piece) + b"\n"
    except Exception as error:  # noqa: BLE001 - per stream; told and logged
        yield msgspec.json.encode(_told(error).fields()) + b"\n"


async def _as_events(events: AsyncIterator[EventView]) -> AsyncGenerator[bytes, None]:
    # A comment, so that a proxy passes the headers on before anything happens.
    yield b": aemesh events\n\n"
    try:
        async with _closing(events):
            async for event in events:
                data = msgspec.json.encode(event)
                yield b"id: %d\ndata: %b\n\n" % (event.number, data)
    except Exception as error:  # noqa: BLE001 - per stream; told and logged
        data = msgspec.json.encode(_told(error).fields())
        yield b"event: error\ndata: %b\n\n" % data
