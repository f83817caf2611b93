"""The master: its parts put together, its run, and what its user asks of it.

It finds workers (`Roster`), keeps a link to each, and shares them (`Sharing`) among
groups (`Lives`).  It implements `aemesh.master.control.ControlApi`, mostly by passing
on; what it needs of the world comes in as `Parts`.
"""

from __future__ import annotations

import itertools
import logging
import os
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import trio

from aemesh.errors import SettingsError, UnreachableError
from aemesh.host.ledger.clerk import Clerk
from aemesh.master.attend import Attendant
from aemesh.master.byhand import ByHand
from aemesh.master.callbacks import Callbacks
from aemesh.master.commands import Commands
from aemesh.master.delegations import Delegations
from aemesh.master.heritage import Heritage
from aemesh.master.history import History
from aemesh.master.holding import keep_held
from aemesh.master.idleness import Idleness
from aemesh.master.invitation import Invitation
from aemesh.master.keeper import WITHOUT_KEEPER, open_keeper
from aemesh.master.lives import Lives
from aemesh.master.neighbours import Neighbours
from aemesh.master.overview import Overview
from aemesh.master.reach import open_gate
from aemesh.master.reception import Reception
from aemesh.master.roster import Roster
from aemesh.master.sharing import Sharing
from aemesh.master.takeover import Takeover
from aemesh.master.tuning import check_settings
from aemesh.model.address import Address
from aemesh.model.group import Demand, Receipt, Wish
from aemesh.model.job import JobSpec
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
from aemesh.policy.demand import check_demand
from aemesh.policy.masters import Need, has_enough
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Mapping,
        Sequence,
    )

    from aemesh.master.activity import Activity
    from aemesh.master.group import Group
    from aemesh.master.parts import Announcer, Parts
    from aemesh.master.record import WorkerRecord
    from aemesh.master.remote import DialStream
    from aemesh.model.group import Haste
    from aemesh.model.names import GroupName
    from aemesh.model.view import Delegate
    from aemesh.net.link import Closed, Link
    from aemesh.plugin import Job, Page

_log = logging.getLogger(__name__)


class Master:
    """One master; `run` it once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.history = History(parts.store, wall=parts.wall)
        self.clerk = Clerk(parts.ledger)
        self._callbacks = Callbacks()
        self.roster = Roster(
            parts,
            self.history,
            self._attend,
            callbacks=self._callbacks,
            has_enough=self.has_enough,
        )
        self.invitation = Invitation(self.has_enough, self.roster.try_all)
        self.port: int | None = None  # where workers come in
        self._groups: dict[GroupName, Group] = {}
        self.sharing = Sharing(
            self.roster.records,
            self._groups,
            store=parts.store,
            desk=parts.desk,
            key_id=parts.key_id,
            wall=parts.wall,
        )
        self._overview = Overview(
            self.roster.records, self._groups, self.sharing, parts.store
        )
        self._by_hand = ByHand(self.roster, self.sharing, parts.store, self.history)
        self._delegations = Delegations(parts.mode, parts.delegation)
        self._gate = open_gate(
            parts.network, host=parts.head_address, dialable=parts.dialable
        )
        self._commands = Commands(
            groups=self._groups,
            find=self._overview.find,
            incomplete=self._overview.incomplete,
            engines=parts.engines,
            delegations=self._delegations,
            records=self.roster.records,
            sharing=self.sharing,
            history=self.history,
        )
        self._heritage = Heritage(
            parts, self._groups, self.history, start=self._start_group
        )
        self._takeover: Takeover | None = None
        if parts.inherit is not None:
            self._takeover = Takeover(
                parts.adopts,
                parts.inherit,
                self._heritage,
                history=self.history,
                inherited=parts.store.inherited(),
                kept_after=parts.kept_after,
                heirs=parts.heirs,
            )
        self._lives = Lives(
            parts,
            self._groups,
            spawn=self._spawn,
            history=self.history,
            clerk=self.clerk,
            roster=self.roster,
            sharing=self.sharing,
            invitation=self.invitation,
            delegations=self._delegations,
            gate=self._gate,
            heritage=self._heritage,
            takeover=self._takeover,
        )
        self._started_at = parts.wall()
        self._stopping = trio.Event()
        self._crew: trio.Nursery | None = None
        self._clients = itertools.count(1)
        self._idleness = Idleness(self._groups.values, parts.has_clients)

    def __repr__(self) -> str:
        return f"<Master {self._parts.name}: {len(self._groups)} groups>"

    async def run(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Find workers and serve groups until `stop`; then let all go, gracefully."""
        async with self._open_heads(), open_crew() as crew:
            self._crew = crew
            for name, engine in self._parts.store.groups().items():
                if self._takeover is None or not self._takeover.awaits(name):
                    self._lives.start(name, engine)
            crew.start_soon(self.roster.run)
            crew.start_soon(self._neighbours().run)
            crew.start_soon(self.sharing.run)
            crew.start_soon(self._gate.probes.run, self._parts.wait_move)
            if self._parts.port is not None:
                await self._listen(crew)
            if self._takeover is not None:
                crew.start_soon(self._takeover.run)
            task_status.started()
            await self._stopping.wait()
            await self._lives.close_all()
            crew.cancel_scope.cancel()

    @property
    def requests(self) -> Activity:
        """Where requests to us are counted while they are answered."""
        return self._idleness.requests

    async def wait_idle(self, exit_after: float) -> None:
        """Return once nobody has used us for so many seconds."""
        await self._idleness.wait(exit_after)

    # --- what ControlApi asks for ---

    def status(self) -> StatusView:
        """Return the master with its workers and groups."""
        parts = self._parts
        return StatusView(
            name=parts.name,
            key=str(parts.key_id),
            words=parts.key_id.words,
            mode=parts.mode,
            version=parts.version,
            pid=os.getpid(),
            state_dir=parts.state_dir,
            listening=self._listening(),
            started_at=self._started_at,
            workers=tuple(self._overview.workers()),
            groups=tuple(self._overview.groups()),
            imposters=self.roster.imposters.views(),
        )

    def workers(self) -> list[WorkerView]:
        """Return every worker that was heard of, by name."""
        return self._overview.workers()

    def groups(self) -> list[GroupView]:
        """Return every group, by name."""
        return self._overview.groups()

    def group_status(self, name: GroupName) -> GroupStatusView:
        """Return all about one group: its members, and why others are none."""
        return self._overview.status(name)

    async def open_group(
        self, name: GroupName, engine: str, *, wish: Wish | None = None
    ) -> None:
        """Make a group, or raise `UnknownNameError` for an unknown engine."""
        demand = check_demand(Demand() if wish is None else wish(Demand()))
        present = self._groups.get(name)
        if present is not None and present.engine.name != engine:
            why = f"its engine is {present.engine.name}"
            msg = f"group {name} is there already"
            raise SettingsError(msg, why=why)
        if present is None:
            check_settings(self._parts.engines(engine), demand.settings)
            self._parts.store.put_group(name, engine)
            self._parts.store.put_demand(name, demand)
            self._lives.start(name, engine)
            self.sharing.asked()
        elif wish is not None:
            self.set_group(name, wish)

    async def close_group(self, name: GroupName) -> None:
        """End a group; its workers are free for others."""
        group = self._overview.find(name)
        self._parts.store.drop_group(name)
        self._delegations.forget(name)
        await self._lives.close(group)
        self.sharing.forget(name)
        self.history.add("group.closed", f"group {name} is closed", group=name)

    def set_group(self, name: GroupName, wish: Wish) -> GroupView:
        """Change what a group wants; raises `UsageError` if that makes no sense."""
        group = self._overview.find(name)
        demand = wish(self.sharing.demand(name))
        check_settings(group.engine, demand.settings)
        self.sharing.set_demand(name, demand)
        self.invitation.look()
        self.roster.wake_all()  # they are told what to have warm
        self.history.add("group.set", f"{name} wants {_told(demand)}", group=name)
        return self._overview.group(group)

    def readmit(self, worker: str) -> WorkerView:
        """Take a worker back that was set aside."""
        return self._by_hand.readmit(worker)

    async def move(self, worker: str, group: GroupName) -> Receipt:
        """Take a worker out of its group and to another; return how it left."""
        self._overview.find(group)
        return await self._by_hand.move(worker, group)

    async def move_all(
        self, workers: Sequence[str], group: GroupName
    ) -> list[MoveView]:
        """Move several at one time, or nobody if one may not; tell how each fared."""
        self._overview.find(group)
        return await self._by_hand.move_all(workers, group)

    def share(self, workers: Sequence[str]) -> list[MoveView]:
        """Let workers be shared again that were moved by hand."""
        return self._by_hand.share(workers)

    async def drain(
        self, workers: tuple[str, ...], *, by_after: float, haste: Haste
    ) -> list[Receipt]:
        """Take workers out of their groups, all at once, until they are recalled."""
        return await self._by_hand.drain(workers, by_after=by_after, haste=haste)

    async def undrain(self, worker: str) -> None:
        """Let a worker that is drained, or being drained, serve again."""
        await self._by_hand.undrain(worker)

    async def connect(self, group: GroupName, *, members: bool = True) -> ConnectView:
        """Return what a client's environment needs, once enough can work for it.

        Without `members` it waits for the engine only.
        """
        self._overview.find(group)
        until = trio.current_time() + self.sharing.demand(group).wait_after
        # Another life of the group has events of its own.
        while self._is_short(wanted := self._overview.find(group), members=members):
            with trio.move_on_at(until) as scope:
                await wanted.changed.wait()
            if scope.cancelled_caught:
                break
        if members and wanted.state == "ready" and self._overview.missing(wanted):
            raise self._overview.incomplete(wanted)
        return ConnectView(
            group=group, engine=wanted.engine.name, env=dict(wanted.connect_info())
        )

    async def open_page(self, group: GroupName) -> Page:
        """Open a connection to the web page of a group's engine."""
        return await self._overview.find(group).open_page()

    def _is_short(self, group: Group, *, members: bool) -> bool:
        """Whether a client of this group is to wait."""
        return group.state == "opening" or (
            members
            and group.state == "ready"
            and (group.renewing or self._overview.missing(group) > 0)
        )

    def certify(
        self, group: GroupName, csr_pem: str, *, life_after: float = 0.0
    ) -> CertificateView:
        """Sign a client's key for this life of the group, or for a shorter one."""
        authority = self._overview.find(group).authority
        name = f"client {next(self._clients)}"
        until = self._parts.wall() + life_after if life_after > 0 else None
        return CertificateView(
            certificate=authority.sign_untrusted(csr_pem, name=name, until=until),
            authority=authority.certificate_pem,
        )

    def delegate(self, group: GroupName, wish: Delegate) -> DelegationView:
        """Hand the user's identity on to jobs that start from now on, or stop that."""
        view = self._delegations.fulfil(self._overview.find(group), wish)
        subject = view.subject
        text = f"jobs of {group} act as {subject}" if subject else "to nobody any more"
        self.history.add("group.delegated", text, group=group)
        return view

    async def exec(
        self,
        group: GroupName,
        argv: tuple[str, ...],
        env: Mapping[str, str],
        *,
        workers: Sequence[str] = (),
        delegate: Delegate | None = None,
    ) -> AsyncIterator[OutputView]:
        """Run a command on each member, whatever the group's own engine is."""
        spec = JobSpec(argv=argv, env=env)
        said = self._commands.exec(group, spec, workers=workers, delegate=delegate)
        async with aclosing(said) as output:
            async for piece in output:
                yield piece

    async def start_job(
        self,
        group: GroupName | None,
        worker: str,
        spec: JobSpec,
        *,
        delegate: Delegate | None = None,
    ) -> Job:
        """Start a job on one member; None: of whichever group it is a member."""
        return await self._commands.start(group, worker, spec, delegate=delegate)

    async def hold(self, name: GroupName) -> AsyncGenerator[HoldView, None]:
        """Keep a group at its size until this is closed; yield its members anew."""
        held = keep_held(name, find=self._overview.find, sharing=self.sharing)
        async with aclosing(held) as views:
            async for view in views:
                yield view

    async def events(
        self, after: int, *, follow: bool
    ) -> AsyncGenerator[EventView, None]:
        """Yield the history beyond number `after`; with `follow`, what comes then."""
        async with aclosing(self.history.read(after, follow=follow)) as events:
            async for event in events:
                yield event

    def stop(self) -> None:
        """Begin to end: groups are closed, workers let go."""
        self._stopping.set()

    # --- inside ---

    @asynccontextmanager
    async def _open_heads(self) -> AsyncIterator[None]:
        """Have a keeper for the heads while the block lasts, if there is to be one."""
        parts = self._parts
        async with AsyncExitStack() as stack:
            keeper = None
            if parts.keeper is not None:
                opening = open_keeper(
                    parts.keeper, kept_after=parts.kept_after, heirs=parts.heirs
                )
                try:
                    keeper = await stack.enter_async_context(opening)
                except UnreachableError as exc:
                    what = "the keeper of this master is not reached: %s.  %s"
                    _log.warning(what, exc, WITHOUT_KEEPER)
            if keeper is not None and parts.keeper is not None:
                await keeper.keep_only(parts.store.groups())
                port, host = keeper.port, parts.head_address()
                at = Address(host, port) if port else None
                self._heritage.settle(keeper, parts.keeper.key_id, at)
            yield

    def has_enough(self) -> bool:
        """Whether no group takes one more worker."""
        demand = self._parts.store.demand
        return has_enough(
            Need(group.size, demand(name)) for name, group in self._groups.items()
        )

    def _neighbours(self) -> Neighbours:
        return Neighbours(
            key_id=self._parts.key_id,
            records=self.roster.records,
            groups=self._groups,
            demand=self._parts.store.demand,
            holders=self.sharing.holders,
        )

    async def _listen(self, crew: trio.Nursery) -> None:
        """Let workers in that dial us, and announce where."""
        reception = Reception(
            self._parts,
            self.roster,
            self._callbacks,
            has_enough=self.has_enough,
            views=self,
        )
        self.port = await crew.start(reception.run)
        if self._parts.announcer is not None:
            crew.start_soon(self._watch_trust, self._parts.announcer)
            crew.start_soon(self.invitation.run, self._parts.announcer, self.port)

    async def _watch_trust(self, announcer: Announcer) -> None:
        while True:
            await self._parts.desk.wait_change()
            announcer.announce_again()

    def _listening(self) -> tuple[str, ...]:
        if self.port is None:
            return ()
        hosts = self._parts.addresses()
        return tuple(str(Address(host, self.port)) for host in hosts)

    def _spawn(self, task: Callable[..., Awaitable[None]], *args: object) -> None:
        assert self._crew is not None, "groups open while the master runs"
        self._crew.start_soon(task, *args)

    def _start_group(self, name: GroupName, engine: str) -> None:
        self._lives.start(name, engine)

    async def _attend(
        self, record: WorkerRecord, link: Link, dial_stream: DialStream
    ) -> Closed:
        attendant = Attendant(
            record=record,
            link=link,
            dial_stream=dial_stream,
            groups=self._groups,
            sharing=self.sharing,
            desk=self._parts.desk,
            key_id=self._parts.key_id,
            next_key=self._parts.next_key,
            store=self._parts.store,
            history=self.history,
            wall=self._parts.wall,
            takeover=self._takeover,
        )
        record.look, record.attended = self.sharing.look, True
        self.sharing.changed()
        try:
            return await attendant.run()
        finally:
            record.attended = False
            self.sharing.changed()


def _told(demand: Demand) -> str:
    most = "any number of" if demand.max is None else f"{demand.max}"
    told = f"{demand.min} to {most} workers, by weight {demand.weight}"
    if demand.require:
        told += f", having {demand.require}"
    if demand.preload:
        told += f", with {', '.join(demand.preload)} imported"
    settings = (f", {name}={value}" for name, value in sorted(demand.settings.items()))
    return told + "".join(settings)
