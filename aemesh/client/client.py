"""The Python API: a running master, and one group of it, from a script or a notebook.

::

    with aemesh.connect("analysisA") as group:
        client = group.client()

Everything here is sync, and each call is one request on a connection of its own:
objects may be used from several threads.  After an error an object is as good as
before; the next call asks again.
"""
# Options go to Dask as they are.
# ruff: noqa: ANN401

from __future__ import annotations

import os
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack
from urllib.parse import quote

import msgspec

from aemesh.client.environment import GROUP_VARIABLE, filled, wants_tls
from aemesh.client.hold import Hold
from aemesh.client.jobs import JobFolder
from aemesh.client.memberjob import MemberJob
from aemesh.client.runs import Runs
from aemesh.client.transport import ANSWER_AFTER, Transport, error_in, error_of
from aemesh.errors import (
    AemeshError,
    EngineError,
    UnknownNameError,
    UnreachableError,
    UsageError,
)
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.livefolder import LiveFolder
from aemesh.host.statedir import clients_folder, state_root
from aemesh.master.control_wire import (
    Certify,
    Drain,
    Exec,
    Move,
    OpenGroup,
    RunJob,
    SetGroup,
)
from aemesh.model.group import DemandChange, Receipt
from aemesh.model.view import (
    CertificateView,
    ClientJobView,
    ConnectView,
    Delegate,
    DelegationView,
    EventView,
    GroupStatusView,
    GroupView,
    MoveView,
    OutputView,
    StatusView,
    WorkerView,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor
    from pathlib import Path
    from types import TracebackType

    import distributed

    from aemesh.client.credentials import Credentials
    from aemesh.client.following import Following
    from aemesh.client.map import Results
    from aemesh.client.page import LoopbackPage
    from aemesh.client.transport import Talk

_T = TypeVar("_T")
_Item = TypeVar("_Item")


class Mesh:
    """A running master of one state directory.

    Making it asks nothing; `NoMasterError` comes from the first call.
    """

    def __init__(self, state: str | Path | None = None) -> None:
        self.folder = state_root(state) / "master"
        self._transport = Transport(self.folder / SOCKET_FILE)

    @property
    def runs(self) -> Runs:
        """The durable runs that the master keeps."""
        return Runs(self._transport)

    def status(self) -> StatusView:
        """Return the master with its workers and groups."""
        return self._transport.ask("GET", "/v1/status", answer=StatusView)

    def workers(self) -> list[WorkerView]:
        """Return every worker that the master knows of."""
        return self._transport.ask("GET", "/v1/workers", answer=list[WorkerView])

    def groups(self) -> list[GroupView]:
        """Return every group."""
        return self._transport.ask("GET", "/v1/groups", answer=list[GroupView])

    def open_group(
        self, name: str, engine: str = "dask", **demand: Unpack[DemandChange]
    ) -> None:
        """Make a group, or find it there; `demand` as in `set_group`."""
        change = SetGroup(**demand) if demand else None
        wish = OpenGroup(name=name, engine=engine, demand=change)
        self._transport.ask("POST", "/v1/groups", body=wish, answer=dict)

    def set_group(self, name: str, **demand: Unpack[DemandChange]) -> GroupView:
        """Change what a group wants: `min`, `max`, `weight`, `wait_after`, `require`.

        What is not named stays.  A `max` of None is none, a `require` of "" anything.
        """
        return self._transport.ask(
            "PATCH", _of(name), body=SetGroup(**demand), answer=GroupView
        )

    def group_status(self, name: str) -> GroupStatusView:
        """Return all about a group: its members, and why others are none."""
        return self._transport.ask("GET", _of(name), answer=GroupStatusView)

    def close_group(self, name: str) -> None:
        """End a group, and give its workers back."""
        self._transport.ask("DELETE", _of(name), answer=dict)

    def move(self, worker: str, group: str) -> Receipt:
        """Move a worker to another group, where it stays; return how it left its own.

        If it does not come up there it goes back, and that error is raised.
        """
        (view,) = self.move_all([worker], group)
        if view.error is not None:
            raise error_of(view.error)
        assert view.receipt is not None, "it moved, or an error says why not"
        return view.receipt

    def move_all(self, workers: Sequence[str], group: str | None) -> list[MoveView]:
        """Move workers to a group, where they stay; None shares them again.

        Each view has the receipt of how the worker left, or the error that it met.
        """
        wish = Move(workers=tuple(workers), group=group)
        return self._transport.ask(
            "POST", "/v1/moves", body=wish, answer=list[MoveView]
        )

    def readmit(self, worker: str) -> WorkerView:
        """Take a worker back that was set aside."""
        target = f"/v1/workers/{quote(worker, safe='')}/readmit"
        return self._transport.ask("POST", target, answer=WorkerView)

    def drain(
        self, *workers: str, by_after: float = 30.0, haste: str = "soon"
    ) -> list[Receipt]:
        """Take workers out of their groups within `by_after` seconds; how they left.

        They serve nobody until `undrain`.  `haste` is `late`: they work until their
        data has to move; `soon`: they begin nothing new; `now`: nothing is moved.
        """
        wish = Drain(workers=workers, by_after=by_after, haste=haste)
        return self._transport.ask(
            "POST",
            "/v1/drains",
            body=wish,
            answer=list[Receipt],
            within=by_after + ANSWER_AFTER,
        )

    def undrain(self, worker: str) -> None:
        """Let a worker that was drained serve again."""
        target = f"/v1/drains/{quote(worker, safe='')}"
        self._transport.ask("DELETE", target, answer=dict)

    def group(self, name: str) -> Group:
        """Return a group once its engine is up."""
        return Group(self, self.connect(name))

    def connect(self, name: str, *, members: bool = True) -> ConnectView:
        """Wait until a group has its min; return what its clients need.

        Raises `GroupIncompleteError` when it has waited as long as the group says.
        Without `members` it waits for the engine only.
        """
        target = f"{_of(name, 'connect')}?members={int(members)}"
        return self._transport.ask("POST", target, answer=ConnectView, within=None)

    def open_page(self, name: str, said: bytes) -> Talk:
        """Open a connection to the web page of a group's engine, and say this first.

        Raises `EngineError` if it has none.
        """
        return self._transport.talk("POST", _of(name, "page"), said)

    def certify(
        self, name: str, csr_pem: str, *, life_after: float = 0.0
    ) -> CertificateView:
        """Have a client's certificate request signed for one group.

        It holds as long as the group, or for `life_after` seconds if that is less.
        """
        return self._transport.ask(
            "POST",
            _of(name, "certificates"),
            body=Certify(csr=csr_pem, life_after=life_after),
            answer=CertificateView,
        )

    def delegate(self, name: str, wish: Delegate) -> DelegationView:
        """Hand your X.509 identity on to a group's jobs that start from now on."""
        return self._transport.ask(
            "POST", _of(name, "delegation"), body=wish, answer=DelegationView
        )

    def exec(
        self,
        name: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        workers: Sequence[str] = (),
        delegate: Delegate | None = None,
    ) -> Iterator[OutputView]:
        """Run a command on each member of a group, or on `workers` among them.

        Yields its output and exits.
        """
        wish = Exec(
            argv=tuple(argv),
            env=dict(env or {}),
            delegate=delegate,
            workers=tuple(workers),
        )
        for line in self._transport.lines("POST", _of(name, "exec"), body=wish):
            yield _decoded(line, OutputView)

    def job(  # noqa: PLR0913 - what there is to say of a job
        self,
        worker: str,
        argv: Sequence[str],
        env: Mapping[str, str] | None = None,
        *,
        group: str | None = None,
        files: Mapping[str, bytes] | None = None,
        delegate: Delegate | None = None,
    ) -> MemberJob:
        """Start a command on one member; return it with its input and output.

        `worker` is a name, a label, a fingerprint or an address.  Without a group it
        may be a member of any.  `files` are written to the folder that it starts in.
        """
        order = RunJob(
            worker=worker,
            argv=tuple(argv),
            group=group,
            env=dict(env or {}),
            files=dict(files or {}),
            delegate=delegate,
        )
        return MemberJob(self._transport, order)

    def hold(self, name: str) -> Hold:
        """Keep a group at its size until the answer is closed, or we are gone."""
        return Hold(self._transport, name)

    def events(self, after: int = 0, *, follow: bool = True) -> Iterator[EventView]:
        """Yield the history beyond number `after`; with `follow`, what comes then."""
        target = f"/v1/events?after={after}&follow={int(follow)}"
        for line in self._transport.lines("GET", target):
            field, _, value = line.partition(b":")
            if field == b"data":
                yield _decoded(value, EventView)

    def jobs(self) -> list[ClientJobView]:
        """Return the scripts of ``aemesh run --detach``; asks no master."""
        return [job.view() for job in JobFolder(self.folder.parent).all()]

    def stop(self) -> None:
        """Ask the master to end; it answers before it does."""
        self._transport.ask("POST", "/v1/stop", answer=dict)

    def __repr__(self) -> str:
        return f"<Mesh {self.folder}>"


class Group:
    """One group with its engine up; a context manager that ends its credentials.

    Clients made by `client` need the credentials at each new connection, so
    close the group after them; it is closed at the latest at the interpreter's exit.
    """

    def __init__(self, mesh: Mesh, view: ConnectView) -> None:
        self.mesh = mesh
        self.name = view.group
        self.engine = view.engine
        self._view = view
        self._clients = clients_folder(mesh.folder.parent)
        self._credentials: Credentials | None = None
        # Without credentials: by it the master sees that somebody is there.
        self._sign: LiveFolder | None = None
        self._lock = threading.Lock()
        self._page: LoopbackPage | None = None
        self._following: Following | None = None  # that follows the load

    def status(self) -> GroupView:
        """Return the group as it is now."""
        groups = self.mesh.groups()
        for group in groups:
            if group.name == self.name:
                return group
        kind = "group"
        raise UnknownNameError(kind, self.name, [group.name for group in groups])

    @property
    def workers(self) -> list[WorkerView]:
        """The workers that serve the group now."""
        return [w for w in self.mesh.workers() if w.group == self.name]

    def exec(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> Iterator[OutputView]:
        """Run a command on each member; yield its output and exits as they come."""
        return self.mesh.exec(self.name, argv, env)

    def job(
        self, worker: str, argv: Sequence[str], env: Mapping[str, str] | None = None
    ) -> MemberJob:
        """Start a command on one member; return it with its input and output."""
        return self.mesh.job(worker, argv, env, group=self.name)

    def hold(self) -> Hold:
        """Keep the group at its size while a block lasts: ``with group.hold():``."""
        return self.mesh.hold(self.name)

    def environment(self) -> dict[str, str]:
        """Return the variables by which a script finds the engine, until `close`."""
        state = str(self.mesh.folder.parent)
        with self._lock:
            if not wants_tls(self._view):
                self._sign = self._sign or LiveFolder(self._clients)
                return filled(self._view, tls=None, state=state)
            if self._credentials is None:
                self._credentials = self._new_credentials()
            return filled(self._view, tls=self._credentials.folder, state=state)

    def client(self, **options: Any) -> distributed.Client:
        """Return a `distributed.Client` of the group; `options` are the Client's.

        Raises `EngineError` if the group runs another engine than Dask.
        """
        self._check_dask("client")
        # Loaded here: half a second, for those alone who use it.
        from aemesh.client.daskclient import open_client  # noqa: PLC0415

        client = open_client(self.environment(), **options)
        # The credentials must live as long as the client: it holds the group.
        client.aemesh_group = self  # type: ignore[attr-defined]
        return client

    def executor(self, **options: Any) -> Executor:
        """Return a `concurrent.futures.Executor` that computes on the group.

        `options` are those of Dask's `Client.get_executor`: `retries`, `resources`, …
        Raises as `client`.
        """
        client = self.client(set_as_default=False)
        from aemesh.client.daskclient import GroupExecutor  # noqa: PLC0415

        return GroupExecutor(client, **options)

    @property
    def dashboard_link(self) -> str:
        """A link to the engine's web page, on a port of this machine, until `close`.

        Whoever has the link may see the page; nobody else can.  Raises `EngineError`
        if there is no page: for Dask, bokeh must be installed where its scheduler runs.
        """
        from aemesh.client.page import LoopbackPage  # noqa: PLC0415

        with self._lock:
            if self._page is None:
                self.mesh.open_page(self.name, b"").hang_up()  # is there one?
                self._page = LoopbackPage(partial(self.mesh.open_page, self.name))
            return self._page.link

    def scale(self, n: int) -> None:
        """Have `n` workers, no more and no less as far as there are so many."""
        self._follow(None)
        self.mesh.set_group(self.name, min=n, max=n)

    def adapt(
        self, minimum: int = 0, maximum: int | None = None, **options: Any
    ) -> None:
        """Have between `minimum` and `maximum` workers, as many as the load calls for.

        What that is Dask says, again and again until `close` or `scale`; `options` are
        `every`, `target_duration` (seconds) and `wait_count`, as of Dask's `Adaptive`.
        With another engine the master shares in between.
        """
        self._follow(None)
        self.mesh.set_group(self.name, min=minimum, max=maximum)
        if self.engine != "dask":
            return
        from aemesh.client.following import Following  # noqa: PLC0415

        def ask(number: int) -> None:
            self.mesh.set_group(self.name, min=minimum, max=number)

        def done() -> None:
            with suppress(AemeshError):  # the master may have ended before us
                self.mesh.set_group(self.name, min=minimum, max=maximum)

        self._follow(
            Following(
                self.client(set_as_default=False),
                ask,
                done=done,
                processes=processes_each(self.mesh.workers(), self.name),
                minimum=minimum,
                maximum=maximum,
                **options,
            )
        )

    def map(
        self,
        function: Callable[[_Item], _T],
        items: Iterable[_Item],
        *,
        key: str | None = None,
        retries: int = 2,
        fresh: bool = False,
    ) -> Results[_T]:
        """Compute `function` of each item on the group; yield the results in order.

        With a `key` each finished item is kept by the master, for good: the same call
        again, after whatever was killed, returns what is kept and computes the rest.
        `fresh` forgets what there is under this key.  An item that raises is tried
        `retries` times more, and raises here when it is its turn.  Within an item,
        `aemesh.checkpoint` and `aemesh.resume` keep its state.

        Raises `OtherWorkError` when the key is that of another function, and
        `EngineError` if the group runs another engine than Dask.
        """
        from aemesh.client.map import start_map  # noqa: PLC0415 - for who maps

        self._check_dask("map; `aemesh map` spreads commands over any group")
        return start_map(
            self.name,
            function,
            items,
            connect=lambda: self.mesh.group(self.name),
            runs=self.mesh.runs,
            key=key,
            retries=retries,
            fresh=fresh,
        )

    def close(self) -> None:
        """Remove the credentials, and follow no load any more; the group goes on."""
        self._follow(None)
        with self._lock:
            if self._page is not None:
                self._page.close()
                self._page = None
            if self._credentials is not None:
                self._credentials.close()
                self._credentials = None
            if self._sign is not None:
                self._sign.close()
                self._sign = None

    def _follow(self, following: Following | None) -> None:
        """Let this one follow the load, and no longer the one before."""
        before, self._following = self._following, following
        if before is not None:
            before.close()

    def _check_dask(self, what: str) -> None:
        if self.engine != "dask":
            msg = f"group {self.name} has no Dask {what}"
            raise EngineError(msg, why=f"its engine is {self.engine}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Group {self.name} of {self.mesh.folder}, engine {self.engine}>"

    def _new_credentials(self) -> Credentials:
        # cryptography's x509 is loaded only where a certificate is wanted.
        from aemesh.client.credentials import Credentials  # noqa: PLC0415

        return Credentials(self._clients, lambda csr: self.mesh.certify(self.name, csr))


def connect(group: str | None = None, *, state: str | Path | None = None) -> Group:
    """Return a group of the running master, once its engine is up.

    Without a name it is the one that `aemesh run --group` started this script for.
    """
    return Mesh(state).group(group_name(group))


def group_name(given: str | None) -> str:
    """Return the name that was given, or that of the group we were started for."""
    name = given or os.environ.get(GROUP_VARIABLE)
    if not name:
        msg = "which group?"
        raise UsageError(msg, why=f"no name was given and ${GROUP_VARIABLE} is not set")
    return name


def processes_each(workers: Iterable[WorkerView], group: str) -> float:
    """Return how many of Dask's processes a worker of this group runs, on average.

    It is one for each core; before any serves the group, of those that may.
    """
    there = list(workers)
    members = [one.cores for one in there if one.group == group]
    cores = members or [one.cores for one in there if one.state == "trusted"] or [1]
    return max(1.0, sum(cores) / len(cores))


def _of(group: str, part: str = "") -> str:
    end = f"/{part}" if part else ""
    return f"/v1/groups/{quote(group, safe='')}{end}"


def _decoded(line: bytes, kind: type[_T]) -> _T:
    """Return the value in a line of a stream, or raise the error that is in it."""
    try:
        return msgspec.json.decode(line, type=kind)
    except msgspec.MsgspecError as error:
        told = error_in(line)
        if told is not None:
            raise told from None
        msg = "the master's answer cannot be read"
        raise UnreachableError(msg, why=str(error)) from error
