"""One life of a group: its engine, from coming up to its end, and who its members are.

The engine lives in `run`.  Workers come by `admit` and go by `retire` or `lose`, which
each worker's own task calls; so what concerns one worker happens in one order, and the
group has no queue of its own.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, EngineError
from aemesh.master.context import Context
from aemesh.master.joining import FLEETING, Joining, Tenure
from aemesh.master.labels import Labels
from aemesh.master.plugged import Plugged
from aemesh.master.remote import DialStream, RemoteMember, Tie
from aemesh.master.succession import Succession
from aemesh.model.counted import counted
from aemesh.model.group import Demand, Haste, Progress, Receipt
from aemesh.model.names import GroupName, JobId
from aemesh.model.view import GroupView
from aemesh.tasks.nursery import open_crew
from aemesh.tasks.waiting import wait_any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aemesh.master.activity import Activity
    from aemesh.master.asked import Questions
    from aemesh.master.delegation import Delegation
    from aemesh.master.heads import Heads
    from aemesh.master.history import History
    from aemesh.master.kept import Estate
    from aemesh.master.reach import Gate
    from aemesh.master.record import WorkerRecord
    from aemesh.model.key import KeyId
    from aemesh.net.link import Link
    from aemesh.plugin import Engine, Member, Page

_log = logging.getLogger(__name__)


class Group:
    """One group of a master."""

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        name: GroupName,
        engine: Engine,
        *,
        address: Callable[[], str],
        heads: Heads,
        history: History,
        wall: Callable[[], float],
        gate: Gate,
        wants: Callable[[], Demand] = Demand,
        delegation: Delegation | None = None,
        estate: Estate | None = None,
        tenure: Tenure = FLEETING,
        questions: Questions | None = None,
    ) -> None:
        self.name = name
        self.engine = engine
        self.history = history
        self.wants = wants
        self.state = "opening"
        self.note = ""
        self.members: dict[KeyId, RemoteMember] = {}
        self.running: Plugged | None = None
        # Its keeper is out of reach: what runs is left as it is, for the group's next
        # life to go on with, or for nobody.
        self.suspended = False
        self.succession = Succession(
            name, engine.name, heads=heads, address=address, now=wall(), estate=estate
        )
        self.authority = self.succession.authority
        self.delegation = delegation  # of the user's identity to its jobs
        self.changed = trio.Event()  # its state, or who is in it
        self.due = trio.Event()  # its state, or what members are to do
        self._wall = wall
        self._gate = gate
        self._joining: Joining | None = None  # since the engine is up
        self._tenure = tenure
        self._questions = questions
        self._closing = trio.Event()
        self._tie = Tie()
        self._scope = trio.CancelScope()  # of the engine
        self._broken: set[KeyId] = set()
        self._stale: dict[KeyId, None] = {}  # to be brought up anew, in this order
        self._coming: dict[KeyId, trio.CancelScope] = {}
        self._numbers = itertools.count(1)
        self._id = secrets.token_hex(3)
        expected = self.succession.expected.values()
        self._labels = Labels(heir.label for heir in expected)

    def __repr__(self) -> str:
        return f"<Group {self.name}: {self.state}, {len(self.members)} members>"

    @property
    def address(self) -> str:
        """Where members reach the head: of the network that we are in now."""
        return self.succession.address

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that its nodes are to have imported."""
        return self.wants().preload

    @property
    def size(self) -> int:
        """How many workers are members, or on their way to be."""
        return len(self.members.keys() | self._coming.keys())

    @property
    def claimed(self) -> int:
        """How many places are taken: those of members that are to come back, too."""
        expected = self.succession.expected.keys()
        return len(self.members.keys() | self._coming.keys() | expected)

    async def run(self) -> None:
        """Bring the engine up and keep it until `close`; tells how it goes."""
        try:
            # An engine's error leaves its block in one.
            async with open_crew() as crew:
                try:
                    with self._scope:
                        await self._run(crew)
                finally:
                    await self._end_joins()
                crew.cancel_scope.cancel()
        except AemeshError as exc:
            self._tell_failed(str(exc))
        except Exception as exc:  # noqa: BLE001 - a plug-in's bug ends its group only
            _log.exception("engine %s met a bug", self.engine.name)
            self._tell_failed(f"a bug of its engine, {type(exc).__name__}")
        finally:
            self.running = None
            self.succession.expected.clear()
            self._become(self._end())

    def _end(self) -> str:
        if self._closing.is_set():
            return "closed"
        return "opening" if self.suspended else "failed"

    def suspend(self) -> None:
        """Leave all jobs as they run, and end this life of the group."""
        if self.suspended or self.state not in ("opening", "ready"):
            return
        self.suspended = self._tie.is_cut = True
        self.note = "the keeper of its head is out of reach"
        text = f"group {self.name} waits: {self.note}"
        self.history.add("group.waits", text, group=self.name)
        self._become("opening")
        self.succession.let_go()
        self._scope.cancel()

    def _tell_failed(self, why: str) -> None:
        if self.suspended:
            return
        self.note = why
        text = f"group {self.name} has no engine: {why}"
        self.history.add("group.failed", text, group=self.name)

    async def _run(self, crew: trio.Nursery) -> None:
        async with self.engine.open(self.context()) as running:
            plugged = self.running = Plugged(self.engine.name, running)
            joining = self._joining = self._way_in(plugged, crew)
            self._become("ready")
            expected = len(self.succession.expected)
            text = f"group {self.name} is ready: {self.engine.name} is up"
            if expected:
                members = counted(expected, "member")
                verb = "is" if expected == 1 else "are"
                text = f"group {self.name} goes on: {members} {verb} expected"
            self.history.add("group.ready", text, group=self.name)
            crew.start_soon(self._miss, joining)
            await self._closing.wait()
            self._become("closing")
            self._call_joins_off()
            # Workers are released first: nobody misses a head that still is.
            with trio.move_on_after(limits.RETIRE_AFTER):
                while self.members or self._coming:
                    await self.changed.wait()
        await self.succession.forget()

    def _call_joins_off(self) -> None:
        for scope in self._coming.values():
            scope.cancel()

    async def _end_joins(self) -> None:
        """Wait for who was on the way in, before there is nothing to serve it with."""
        self.running = None
        if self.state == "ready":
            self._become("failed")
        self._call_joins_off()
        with trio.CancelScope(shield=True):
            while self._coming:
                await self.changed.wait()

    def context(self) -> Context:
        """Return what an engine may ask of it."""
        return Context(
            name=self.name,
            history=self.history,
            succession=self.succession,
            wants=self.wants,
            next_job=self._next_job,
            is_closing=self._closing.is_set,
            head_is_cut_off=self.suspend,
            is_broken=self.member_broken,
        )

    def _way_in(self, engine: Plugged, crew: trio.Nursery) -> Joining:
        return Joining(
            group=self.name,
            engine=engine,
            lose=self._tell_lost,
            crew=crew,
            succession=self.succession,
            history=self.history,
            gate=self._gate,
            tenure=self._tenure,
            questions=self._questions,
            delegation=lambda: self.delegation,
            next_job=self._next_job,
            labels=self._labels,
            tie=self._tie,
            wall=self._wall,
        )

    def wake(self) -> None:
        """Have all who wait for a change look again."""
        self._tell_changed()
        self._tell_due()

    def close(self) -> None:
        """Let the members go and end the engine."""
        self._closing.set()
        if self.state == "ready":
            self._become("closing")

    async def admit(
        self, record: WorkerRecord, link: Link, dial_stream: DialStream
    ) -> RemoteMember:
        """Take an assigned worker in; returns when it can take work.

        Raises `EngineError`, `UnreachableError` or `RequestFailedError`.
        """
        with trio.CancelScope() as scope:
            self._coming[record.key_id] = scope
            try:
                self._engine()
                assert self._joining is not None, "an engine that is up is joined"
                member = await self._joining.join(record, link, dial_stream)
                self._broken.discard(record.key_id)
                self.members[record.key_id] = member
                return member
            finally:
                del self._coming[record.key_id]
                self._tell_changed()
        msg = f"group {self.name} ended while {record.name} joined"
        raise EngineError(msg)

    def expects(self, key_id: KeyId, generation: int) -> bool:
        """Whether a former master left this worker as a member in this generation."""
        heir = self.succession.expected.get(key_id)
        return heir is not None and heir.generation == generation

    async def _miss(self, joining: Joining) -> None:
        """Go on without the members of a former master that do not come back."""
        if not self.succession.expected:
            return
        await trio.sleep(limits.ADOPT_AFTER)
        missed = dict(self.succession.expected)
        self.succession.expected.clear()
        for key_id, heir in missed.items():
            await joining.miss(heir)
            if key_id not in self.members.keys() | self._coming.keys():
                await self.succession.forget_member(key_id)
        self._tell_changed()

    async def retire(
        self, record: WorkerRecord, *, by_after: float, haste: Haste = Haste.SOON
    ) -> Receipt:
        """Let a member go gracefully: its work and data move first.

        Cancelled, it is a member still: it may be asked again, or told to stay.
        """
        member = self.members.get(record.key_id)
        started = trio.current_time()
        nothing = member is None or self.running is None
        receipt = Receipt(record.name, self.name, graceful=nothing)
        try:
            if member is not None and self.running is not None:
                # The engine owes an end by then; one that forgets is left behind.
                with trio.move_on_after(by_after + limits.TERM_AFTER):
                    receipt = await self._let_go(
                        self.running, member, by_after=by_after, haste=haste
                    )
        except AemeshError as exc:
            if self.suspended:  # its next life may go on with the member
                self._remove(record)
                raise
            assert member is not None, "only an engine fails to let one go"
            await self._drop(member, str(exc))
        self._remove(record)
        await self.succession.forget_member(record.key_id)
        return replace(receipt, took_after=trio.current_time() - started)

    async def _let_go(
        self, running: Plugged, member: RemoteMember, *, by_after: float, haste: Haste
    ) -> Receipt:
        """Have the engine let a member go; commands that run there have as long.

        No more begin, but on one that works until the end.  Those of a group that is
        closed are not waited for: whoever closed it meant them, too.
        """
        commands = member.commands
        ended, soon = commands.ended, haste is Haste.SOON
        with commands.closed() if soon else nullcontext():
            async with open_crew() as crew:
                if soon:
                    crew.start_soon(self._wait_commands, commands, by_after)
                receipt = await running.retire(member, by_after=by_after, haste=haste)
        return replace(
            receipt,
            finished=receipt.finished + commands.ended - ended,
            restarted=receipt.restarted + commands.running,
        )

    async def _wait_commands(self, commands: Activity, after: float) -> None:
        with trio.move_on_after(after):
            await wait_any(commands.wait_none, self._closing.wait)

    async def _drop(self, member: RemoteMember, why: str) -> None:
        """Go on without a member that the engine could not let go gracefully.

        Who was promised its machine is not to wait for an engine.
        """
        text = f"{self.engine.name} did not let {member.name} go: {why}"
        self.history.add("engine.broken", text, worker=member.name, group=self.name)
        await self._tell_lost(member)

    async def expect(self, record: WorkerRecord, *, by_after: float | None) -> bool:
        """Tell the engine when a member leaves, or that it stays; False: it cannot."""
        member = self.members.get(record.key_id)
        if member is None or self.running is None:
            return False
        return await self.running.expect(member, by_after=by_after)

    async def progress(self, record: WorkerRecord) -> Progress | None:
        """Return how far a member's departure is, if the engine tells."""
        member = self.members.get(record.key_id)
        if member is None or self.running is None:
            return None
        return await self.running.progress(member)

    async def lose(self, record: WorkerRecord, member: RemoteMember | None) -> None:
        """Go on without a worker that is gone."""
        self._remove(record)
        if self.suspended:
            return  # it is met again, or missed, in the next life
        if member is not None:
            await self._tell_lost(member)
        await self.succession.forget_member(record.key_id)

    def hand_back(self, record: WorkerRecord) -> None:
        """Part with a member that goes on as it is, for the next life to adopt."""
        self._remove(record)

    async def _tell_lost(self, member: Member) -> None:
        """Tell the engine that a member is gone, if it is up; it may not take note."""
        try:
            if self.running is not None:
                await self.running.lost(member)
        except AemeshError as exc:
            _log.warning("the loss of %s is not taken note of: %s", member.name, exc)

    async def idle_after(self) -> Mapping[KeyId, float]:
        """Return seconds since each member's last work; 0.0 while it works.

        The engine says it where it can.  Else a member works while a job of it runs,
        as it does, either way, while a command of `aemesh exec` runs there.
        """
        members = dict(self.members)
        told = None if self.running is None else await self.running.idle_after()
        if told is not None:
            engine = {key: told.get(one.label, 0.0) for key, one in members.items()}
        else:
            engine = {key: one.activity.idle_after() for key, one in members.items()}
        return {
            key: min(engine[key], one.commands.idle_after())
            for key, one in members.items()
        }

    def is_broken(self, record: WorkerRecord) -> bool:
        """Whether the engine said that its node on this member is lost."""
        return record.key_id in self._broken

    def delegate(self, delegation: Delegation | None) -> None:
        """Hand another identity on, or none; members start anew, one by one."""
        self.delegation = delegation
        self._stale = dict.fromkeys(self.members)
        self._tell_due()

    @property
    def renewing(self) -> bool:
        """Whether members are still to be brought up anew."""
        return bool(self._stale)

    def is_stale(self, record: WorkerRecord) -> bool:
        """Whether this member is the next that is to be brought up anew."""
        return next(iter(self._stale), None) == record.key_id

    def member_broken(self, member: Member, why: str) -> None:
        """Note that the engine lost its node on a member."""
        for key_id, known in self.members.items():
            if known.label == member.label:
                text = f"{self.engine.name} on {member.name} broke: {why}"
                self.history.add(
                    "engine.broken", text, worker=member.name, group=self.name
                )
                self._broken.add(key_id)
                self._tell_due()
                return

    async def open_page(self) -> Page:
        """Open a connection to the engine's web page; raises `EngineError`."""
        return await self._engine().open_page()

    def connect_info(self) -> Mapping[str, str]:
        """Return what a client's environment needs; raises `EngineError`."""
        return self._engine().connect_info()

    def view(self) -> GroupView:
        """Return what is shown of the group."""
        return GroupView(
            name=self.name,
            engine=self.engine.name,
            state=self.state,
            members=tuple(sorted(m.name for m in self.members.values())),
            cores=sum(m.cores for m in self.members.values()),
            address=self.address,
            note=self.note,
        )

    def _engine(self) -> Plugged:
        if self.running is None:
            why = self.note or f"the group is {self.state}"
            msg = f"group {self.name} has no engine"
            raise EngineError(msg, why=why)
        return self.running

    def _remove(self, record: WorkerRecord) -> None:
        self._broken.discard(record.key_id)
        if record.key_id in self._stale:
            del self._stale[record.key_id]
            self._tell_due()  # it is the next one's turn
        if self._joining is not None:
            self._joining.close_ports(record.key_id)
        member = self.members.pop(record.key_id, None)
        if member is not None:
            member.dismiss()
            self._tell_changed()

    def _become(self, state: str) -> None:
        self.state = state
        self.wake()

    def _tell_changed(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _tell_due(self) -> None:
        self.due.set()
        self.due = trio.Event()

    def _next_job(self) -> JobId:
        return JobId(f"{self.name[:32]}-{self._id}-{next(self._numbers)}")
