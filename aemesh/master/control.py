"""The control API: a master's facade as HTTP and JSON on a unix socket.

| request | answer |
| --- | --- |
| ``GET /v1/status`` | `StatusView` |
| ``GET /v1/workers`` | list of `WorkerView` |
| ``GET /v1/groups`` | list of `GroupView` |
| ``POST /v1/groups`` | 201; body `OpenGroup` |
| ``GET /v1/groups/NAME`` | `GroupStatusView` |
| ``PATCH /v1/groups/NAME`` | `GroupView`; body `SetGroup` |
| ``DELETE /v1/groups/NAME`` | 204 |
| ``POST /v1/moves`` | list of `MoveView`; body `Move` |
| ``POST /v1/workers/NAME/readmit`` | `WorkerView` |
| ``POST /v1/drains`` | list of `Receipt`; body `Drain` |
| ``DELETE /v1/drains/WORKER`` | 204: it serves again |
| ``POST /v1/groups/NAME/connect?members=1`` | `ConnectView`, once the engine is up |
| ``POST /v1/groups/NAME/certificates`` | `CertificateView`; body `Certify` |
| ``POST /v1/groups/NAME/delegation`` | `DelegationView`; body `Delegate` |
| ``POST /v1/groups/NAME/exec`` | lines of `OutputView`; body `Exec` |
| ``POST /v1/groups/NAME/page`` | a connection to its engine's web page, both ways |
| ``POST /v1/groups/NAME/hold`` | lines of `HoldView`, until the client goes |
| ``POST /v1/jobs`` | frames both ways: see `aemesh.master.jobtalk` |
| ``GET /v1/events?after=N&follow=1`` | server-sent events of `EventView` |
| ``POST /v1/stop`` | 202, and then the master ends |

Durable runs (``/v1/runs``) are in `aemesh.master.control_runs`.
An error is `AemeshError.fields` as JSON; within a stream, whose status is already
sent, it is the last line (or an event named ``error``).
Who may use it, and how it is served: `aemesh.host.control`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
import trio
from starlette.background import BackgroundTask
from starlette.responses import Response

from aemesh import errors
from aemesh.errors import UsageError
from aemesh.host.control import http
from aemesh.host.control.duplex import Duplex
from aemesh.host.control.http import MEDIA_EVENTS, MEDIA_LINES, Stream, as_lines
from aemesh.host.control.http import body_of as _body
from aemesh.host.control.http import json_answer as _json
from aemesh.master.control_runs import run_table
from aemesh.master.control_wire import Certify, Drain, Exec, Move, OpenGroup, SetGroup
from aemesh.master.jobtalk import carry, read_order
from aemesh.master.pagetalk import carry_page
from aemesh.model.group import Haste, Wish
from aemesh.model.job import JobSpec
from aemesh.model.names import GroupName, group_name_untrusted
from aemesh.model.view import Delegate

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Mapping,
        Sequence,
    )
    from pathlib import Path

    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from aemesh.host.control.duplex import Exchange
    from aemesh.host.ledger.clerk import Clerk
    from aemesh.master.activity import Activity
    from aemesh.model.group import Receipt
    from aemesh.model.view import (
        CertificateView,
        ConnectView,
        DelegationView,
        EventView,
        GroupStatusView,
        GroupView,
        HoldView,
        MoveView,
        OutputView,
        StatusView,
        WorkerView,
    )
    from aemesh.plugin import Job, Page


class ControlApi(Protocol):
    """What a master lets its owner see and do; the lines of the table above."""

    @property
    def clerk(self) -> Clerk:
        """The ledger of durable runs."""

    def status(self) -> StatusView:
        """Return the master with its workers and groups."""

    def workers(self) -> list[WorkerView]:
        """Return every worker that the master knows of."""

    def groups(self) -> list[GroupView]:
        """Return every group."""

    async def open_group(
        self, name: GroupName, engine: str, *, wish: Wish | None = None
    ) -> None:
        """Make a group; raises `UnknownNameError` for an unknown engine."""

    def set_group(self, name: GroupName, wish: Wish) -> GroupView:
        """Change what a group wants; raises `UsageError` if that makes no sense."""

    def group_status(self, name: GroupName) -> GroupStatusView:
        """Return all about one group: its members, and why others are none."""

    async def close_group(self, name: GroupName) -> None:
        """End a group, gracefully, and give its workers back."""

    async def move_all(
        self, workers: Sequence[str], group: GroupName
    ) -> list[MoveView]:
        """Move workers to `group`, where they stay; tell how each fared."""

    def share(self, workers: Sequence[str]) -> list[MoveView]:
        """Let workers be shared again that were moved by hand."""

    def readmit(self, worker: str) -> WorkerView:
        """Take a worker back that was set aside."""

    async def drain(
        self, workers: tuple[str, ...], *, by_after: float, haste: Haste
    ) -> list[Receipt]:
        """Take workers out of their groups, and let them serve nobody; as they left."""

    async def undrain(self, worker: str) -> None:
        """Let a worker serve again."""

    async def connect(self, group: GroupName, *, members: bool = True) -> ConnectView:
        """Wait until the engine is up and, as long as it says, for its min."""

    async def open_page(self, group: GroupName) -> Page:
        """Open a connection to the web page of a group's engine."""

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
        workers: Sequence[str] = (),
        delegate: Delegate | None = None,
    ) -> AsyncIterator[OutputView]:
        """Run a command on each member; each ends with an `OutputView` with a code."""

    async def start_job(
        self,
        group: GroupName | None,
        worker: str,
        spec: JobSpec,
        *,
        delegate: Delegate | None = None,
    ) -> Job:
        """Start one job on one member; None: of whichever group it is a member."""

    def hold(self, name: GroupName) -> AsyncIterator[HoldView]:
        """Keep a group at its size until this is closed; yield its members anew."""

    def events(self, after: int, *, follow: bool) -> AsyncIterator[EventView]:
        """Yield the history beyond number `after`; with `follow`, what comes then."""

    def stop(self) -> None:
        """Begin to end the master; returns at once."""


def make_app(api: ControlApi) -> Starlette:
    """Return the ASGI application; it knows nothing of sockets."""
    routes = _Routes(api)
    group = "/v1/groups/{name}"
    table: tuple[tuple[str, str, http.Endpoint], ...] = (
        ("GET", "/v1/status", routes.status),
        ("GET", "/v1/workers", routes.workers),
        ("GET", "/v1/groups", routes.groups),
        ("POST", "/v1/groups", routes.open_group),
        ("GET", group, routes.group_status),
        ("PATCH", group, routes.set_group),
        ("DELETE", group, routes.close_group),
        ("POST", "/v1/moves", routes.move),
        ("POST", "/v1/workers/{name}/readmit", routes.readmit),
        ("POST", "/v1/drains", routes.drain),
        ("DELETE", "/v1/drains/{worker}", routes.undrain),
        ("POST", f"{group}/connect", routes.connect),
        ("POST", f"{group}/page", routes.page),
        ("POST", f"{group}/certificates", routes.certify),
        ("POST", f"{group}/delegation", routes.delegate),
        ("POST", f"{group}/exec", routes.exec),
        ("POST", f"{group}/hold", routes.hold),
        ("POST", "/v1/jobs", routes.job),
        ("GET", "/v1/events", routes.events),
        ("POST", "/v1/stop", routes.stop),
        *run_table(api.clerk, check_group=api.group_status),
    )
    return http.make_app(table)


def make_server(api: ControlApi) -> http.Server:
    """Return what serves `api` on connections that are accepted elsewhere."""
    return http.Server(make_app(api))


async def serve_control(
    api: ControlApi,
    socket_path: Path,
    *,
    requests: Activity | None = None,
    task_status: trio.TaskStatus[Path] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `api` at `socket_path` until cancelled; the socket's file goes with it."""
    app = make_app(api)
    if requests is not None:
        app.add_middleware(_Counted, requests=requests)
    await http.serve_app(app, socket_path, task_status=task_status)


class _Counted:
    """The application, with its requests counted while they are answered."""

    def __init__(self, app: ASGIApp, requests: Activity) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._requests.begin()
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests.end()


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
        change = None if wish.demand is None else wish.demand.on
        await self._api.open_group(_group(wish.name), wish.engine, wish=change)
        return _json({}, status=201)

    async def group_status(self, request: Request) -> ASGIApp:
        return _json(self._api.group_status(_group(request.path_params["name"])))

    async def set_group(self, request: Request) -> ASGIApp:
        wish = await _body(request, SetGroup)
        return _json(self._api.set_group(_group(request.path_params["name"]), wish.on))

    async def close_group(self, request: Request) -> ASGIApp:
        await self._api.close_group(_group(request.path_params["name"]))
        return Response(status_code=204)

    async def move(self, request: Request) -> ASGIApp:
        wish = await _body(request, Move)
        if wish.group is None:
            return _json(self._api.share(wish.workers))
        return _json(await self._api.move_all(wish.workers, _group(wish.group)))

    async def readmit(self, request: Request) -> ASGIApp:
        return _json(self._api.readmit(request.path_params["name"]))

    async def drain(self, request: Request) -> ASGIApp:
        wish = await _body(request, Drain)
        try:
            haste = Haste(wish.haste)
        except ValueError:
            msg = f"unknown haste {errors.quoted(wish.haste)}"
            raise UsageError(msg, why="known: late, soon, now") from None
        by_after = max(wish.by_after, 0.0)
        receipts = await self._api.drain(wish.workers, by_after=by_after, haste=haste)
        return _json(receipts)

    async def undrain(self, request: Request) -> ASGIApp:
        await self._api.undrain(request.path_params["worker"])
        return Response(status_code=204)

    async def connect(self, request: Request) -> ASGIApp:
        group = _group(request.path_params["name"])
        members = request.query_params.get("members", "1") != "0"
        return _json(await self._api.connect(group, members=members))

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
        pieces = self._api.exec(
            group,
            wish.argv,
            wish.env,
            workers=wish.workers,
            delegate=wish.delegate,
        )
        return Stream(MEDIA_LINES, as_lines(pieces))

    async def hold(self, request: Request) -> ASGIApp:
        views = self._api.hold(_group(request.path_params["name"]))
        return Stream(MEDIA_LINES, as_lines(views))

    async def page(self, request: Request) -> ASGIApp:
        group = _group(request.path_params["name"])

        async def talk(exchange: Exchange) -> None:
            await carry_page(await self._api.open_page(group), exchange)

        return Duplex(talk, refuse=http.error_answer)

    async def job(self, _request: Request) -> ASGIApp:
        return Duplex(self._talk, refuse=http.error_answer)

    async def _talk(self, exchange: Exchange) -> None:
        wish, early = await read_order(exchange)
        group = None if wish.group is None else _group(wish.group)
        spec = JobSpec(argv=wish.argv, env=wish.env, files=wish.files)
        job = await self._api.start_job(
            group, wish.worker, spec, delegate=wish.delegate
        )
        await carry(job, exchange, early)

    async def events(self, request: Request) -> ASGIApp:
        # A browser that comes back says where it was in a header of its own.
        asked = request.query_params.get("after", "0")
        after = request.headers.get("last-event-id", asked)
        if not after.isascii() or not after.isdigit():
            msg = f"expected a number after=…, got {errors.quoted(after)}"
            raise UsageError(msg)
        follow = request.query_params.get("follow", "1") != "0"
        events = self._api.events(int(after), follow=follow)
        return Stream(MEDIA_EVENTS, _as_events(events))

    async def stop(self, _request: Request) -> ASGIApp:
        answer = _json({}, status=202)
        answer.background = BackgroundTask(self._stop_now)
        return answer

    async def _stop_now(self) -> None:
        """Stop once the answer is on its way: the connection ends with the master."""
        self._api.stop()


async def _as_events(events: AsyncIterator[EventView]) -> AsyncGenerator[bytes, None]:
    # A comment, so that a proxy passes the headers on before anything happens.
    yield b": aemesh events\n\n"
    try:
        async with http.closing(events):
            async for event in events:
                data = msgspec.json.encode(event)
                yield b"id: %d\ndata: %b\n\n" % (event.number, data)
    except Exception as error:  # noqa: BLE001 - per stream; told and logged
        data = msgspec.json.encode(http.told_of(error).fields())
        yield b"event: error\ndata: %b\n\n" % data
