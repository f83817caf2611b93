"""The control API of a running master: one method for each request.

Everything here is sync, and each call is one request on a connection of its own:
objects may be used from several threads.  After an error an object is as good as
before; the next call asks again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack
from urllib.parse import quote

from aemesh.client.hold import Hold
from aemesh.client.jobs import JobFolder
from aemesh.client.memberjob import MemberJob
from aemesh.client.runs import Runs
from aemesh.client.targets import group_target
from aemesh.client.transport import ANSWER_AFTER, Transport, error_of, in_line
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.statedir import state_root
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
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from aemesh.client.transport import Talk


class Control:
    """The control API of the master of one state directory."""

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
            "PATCH", group_target(name), body=SetGroup(**demand), answer=GroupView
        )

    def group_status(self, name: str) -> GroupStatusView:
        """Return all about a group: its members, and why others are none."""
        return self._transport.ask("GET", group_target(name), answer=GroupStatusView)

    def close_group(self, name: str) -> None:
        """End a group, and give its workers back."""
        self._transport.ask("DELETE", group_target(name), answer=dict)

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

    def connect(self, name: str, *, members: bool = True) -> ConnectView:
        """Wait until a group has its min; return what its clients need.

        Raises `GroupIncompleteError` when it has waited as long as the group says.
        Without `members` it waits for the engine only.
        """
        target = f"{group_target(name, 'connect')}?members={int(members)}"
        return self._transport.ask("POST", target, answer=ConnectView, within=None)

    def open_page(self, name: str, said: bytes) -> Talk:
        """Open a connection to the web page of a group's engine, and say this first.

        Raises `EngineError` if it has none.
        """
        return self._transport.talk("POST", group_target(name, "page"), said)

    def certify(
        self, name: str, csr_pem: str, *, life_after: float = 0.0
    ) -> CertificateView:
        """Have a client's certificate request signed for one group.

        It holds as long as the group, or for `life_after` seconds if that is less.
        """
        return self._transport.ask(
            "POST",
            group_target(name, "certificates"),
            body=Certify(csr=csr_pem, life_after=life_after),
            answer=CertificateView,
        )

    def delegate(self, name: str, wish: Delegate) -> DelegationView:
        """Hand your X.509 identity on to a group's jobs that start from now on."""
        return self._transport.ask(
            "POST", group_target(name, "delegation"), body=wish, answer=DelegationView
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
        for line in self._transport.lines(
            "POST", group_target(name, "exec"), body=wish
        ):
            yield in_line(line, OutputView)

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
                yield in_line(value, EventView)

    def jobs(self) -> list[ClientJobView]:
        """Return the scripts of ``aemesh run --detach``; asks no master."""
        return [job.view() for job in JobFolder(self.folder.parent).all()]

    def stop(self) -> None:
        """Ask the master to end; it answers before it does."""
        self._transport.ask("POST", "/v1/stop", answer=dict)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.folder}>"
