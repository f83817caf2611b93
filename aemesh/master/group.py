"""A group: one engine, the workers that serve it, and their certificates.

The engine lives in `run`.  Workers come and go through `member`, a block that each
worker's own task enters; so what concerns one worker happens in one order, and the
group has no queue of its own.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, EngineError, UnreachableError
from aemesh.master.kept import Heir
from aemesh.master.reach import MemberReach
from aemesh.master.remote import DialStream, RemoteMember, Tie, ask
from aemesh.master.succession import Succession
from aemesh.model.counted import counted
from aemesh.model.group import Demand, Haste, Progress, Receipt
from aemesh.model.key import KeyId
from aemesh.model.machine import Facts, Forward
from aemesh.model.names import GroupName, JobId, NodeName
from aemesh.model.view import GroupView
from aemesh.plugin import Departing, Idling, Showing
from aemesh.policy.reach import member_host
from aemesh.protocol import wire
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from aemesh.master.asked import Questions
    from aemesh.master.delegation import Delegation
    from aemesh.master.heads import Heads
    from aemesh.master.history import History
    from aemesh.master.kept import Estate
    from aemesh.master.probing import Way
    from aemesh.master.reach import Gate
    from aemesh.master.record import WorkerRecord
    from aemesh.model.address import Address
    from aemesh.model.job import JobSpec
    from aemesh.net.link import Link
    from aemesh.plugin import Engine, Job, Member, Page, RunningEngine

_log = logging.getLogger(__name__)

# A common name has 64 characters (RFC 5280), of which a number takes what is left: a
# dot and the 16 digits of 2**53.
_LABEL_NAME_LENGTH = 47


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a master says to its workers about the time when it is out of sight."""

    kept_after: float = 0.0  # seconds that they wait for it
    heirs: tuple[str, ...] = ()  # masters that may take its place
    keeper: wire.Keeper | None = None  # where its heads are, for these


FLEETING = Tenure()


@dataclass(frozen=True, slots=True)
class Context:
    """What an engine may ask; implements `aemesh.plugin.GroupContext`."""

    group: Group

    @property
    def name(self) -> GroupName:
        """The group's name."""
        return self.group.name

    @property
    def address(self) -> str:
        """The address for members to reach the head."""
        return self.group.address

    @property
    def head_is_here(self) -> bool:
        """Whether the head runs on this machine; an adopted one may not."""
        return self.group.succession.head_is_here

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that nodes are to have imported."""
        return self.group.preload

    @property
    def settings(self) -> Mapping[str, str]:
        """What the group's user set of the engine."""
        return self.group.wants().settings

    async def start_head(self, spec: JobSpec) -> Job:
        """Start a job beside the master."""
        return await self.group.start_head(spec)

    async def adopt_head(self) -> Job | None:
        """Return the head that a former master left, if it goes on."""
        return await self.group.succession.adopt_head(self.group.suspend)

    def report(self, text: str) -> None:
        """Add one line to the group's history."""
        self.group.history.add("engine.report", text, group=self.group.name)

    def member_broken(self, member: Member, why: str) -> None:
        """The engine lost its node on a member: it is brought up anew."""
        self.group.member_broken(member, why)


@dataclass(slots=True)
class _Left:
    """What a successor is to know of one member, written down as it grows."""

    succession: Succession
    key_id: KeyId
    heir: Heir

    async def note_job(self, job_id: JobId) -> None:
        """A lasting job is about to start."""
        await self._note(replace(self.heir, jobs=(job_id,)))

    async def note_ports(self, ports: Mapping[int, int], at: str) -> None:
        """These ports are forwarded, and reached at this address of ours."""
        await self._note(replace(self.heir, ports=tuple(ports.items()), at=at))

    async def _note(self, heir: Heir) -> None:
        self.heir = heir
        await self.succession.note_member(self.key_id, heir)


@dataclass(frozen=True, slots=True)
class Absent:
    """A member that is gone before a new master met it; an engine is told of its loss.

    Implements `aemesh.plugin.Member`.
    """

    name: NodeName
    label: str
    address: str = ""
    cores: int = 0
    memory: int = 0

    async def start(self, spec: JobSpec) -> Job:
        """Nothing can be started there."""
        del spec
        msg = f"{self.name} is gone"
        raise UnreachableError(msg)

    async def reach(self, port: int) -> str:
        """Nothing is reached there."""
        del port
        msg = f"{self.name} is gone"
        raise UnreachableError(msg)

    async def adopt(self) -> Job | None:
        """Nothing is known to go on there."""
        return None


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
        self.running: RunningEngine | None = None
        # Its keeper is out of reach: what runs is left as it is, for the group's next
        # life to go on with, or for nobody.
        self.suspended = False
        self.succession = Succession(
            name, engine.name, heads=heads, address=address, now=wall(), estate=estate
        )
        self.authority = self.succession.authority
        self.delegation = delegation  # of the user's identity to its jobs
        self.changed = trio.Event()
        self._wall = wall
        self._gate = gate
        self._crew: trio.Nursery | None = None  # while the engine is up
        self._ports: dict[KeyId, MemberReach] = {}  # of members, and who comes
        self._tenure = tenure
        self._questions = questions
        self._closing = trio.Event()
        self._tie = Tie()
        self._scope = trio.CancelScope()  # of the engine
        self._broken: set[KeyId] = set()
        self._stale: dict[KeyId, None] = {}  # to be brought up anew, in this order
        self._coming: set[KeyId] = set()
        self._numbers = itertools.count(1)
        self._id = secrets.token_hex(3)
        # By name: the last number given out.
        self._labels = _labels_of(self.succession.expected.values())

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
        return len(self.members.keys() | self._coming)

    @property
    def claimed(self) -> int:
        """How many places are taken: those of members that are to come back, too."""
        expected = self.succession.expected.keys()
        return len(self.members.keys() | self._coming | expected)

    async def run(self) -> None:
        """Bring the engine up and keep it until `close`; tells how it goes."""
        try:
            # An engine's error leaves its block in one.
            async with open_crew() as crew:
                with self._scope:
                    await self._run(crew)
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
        async with self.engine.open(Context(self)) as running:
            self.running, self._crew = running, crew
            self._become("ready")
            expected = len(self.succession.expected)
            text = f"group {self.name} is ready: {self.engine.name} is up"
            if expected:
                members = counted(expected, "member")
                verb = "is" if expected == 1 else "are"
                text = f"group {self.name} goes on: {members} {verb} expected"
            self.history.add("group.ready", text, group=self.name)
            crew.start_soon(self._miss)
            await self._closing.wait()
            self._become("closing")
            # Workers are released first: nobody misses a head that still is.
            with trio.move_on_after(limits.RETIRE_AFTER):
                while self.members:
                    await self.changed.wait()
        await self.succession.forget()

    def wake(self) -> None:
        """Have all who wait for a change look again."""
        self._tell_changed()

    def close(self) -> None:
        """Let the members go and end the engine."""
        self._closing.set()
        if self.state == "ready":
            self._become("closing")

    async def start_head(self, spec: JobSpec) -> Job:
        """Start a job beside the master, with the group's certificate if it asks."""
        return await self.succession.start_head(self._next_job(), spec)

    async def admit(
        self, record: WorkerRecord, link: Link, dial_stream: DialStream
    ) -> RemoteMember:
        """Take an assigned worker in; returns when it can take work.

        Raises `EngineError`, `UnreachableError` or `RequestFailedError`.
        """
        self._coming.add(record.key_id)
        try:
            return await self._admit(record, link, dial_stream)
        finally:
            self._coming.discard(record.key_id)

    def expects(self, key_id: KeyId, generation: int) -> bool:
        """Whether a former master left this worker as a member in this generation."""
        heir = self.succession.expected.get(key_id)
        return heir is not None and heir.generation == generation

    async def _admit(
        self, record: WorkerRecord, link: Link, dial_stream: DialStream
    ) -> RemoteMember:
        running = self._engine()
        generation = record.membership.generation
        left = self.succession.expected.pop(record.key_id, None)
        if left is not None and left.generation == generation:
            heir, assigned = left, await self._take_hold(left, link)
        else:
            if left is not None:  # it has begun anew, without what ran there
                await self._lose_absent(left)
            label = self._next_label(record.name, generation)
            heir = Heir(record.name, label, generation, ())
            order = wire.Assign(
                group=self.name,
                generation=generation,
                kept_after=self._tenure.kept_after,
                heirs=self._tenure.heirs,
                keeper=self._tenure.keeper,
            )
            assigned = await ask(link, order, wire.Assigned, within=limits.ANSWER_AFTER)
        member = self._member(record, link, dial_stream, heir=heir, assigned=assigned)
        ports = self._ports[record.key_id]
        assert self._crew is not None, "members are admitted while the engine is up"
        await self._crew.start(ports.run)
        await self._bring_up(running, member, ports, heir)
        self._broken.discard(record.key_id)
        self.members[record.key_id] = member
        self._tell_changed()
        return member

    async def _take_hold(self, heir: Heir, link: Link) -> wire.Assigned:
        """Adopt a member; the engine is told of the loss of one that does not go on."""
        order = wire.Adopt(
            group=self.name,
            generation=heir.generation,
            kept_after=self._tenure.kept_after,
            heirs=self._tenure.heirs,
            keeper=self._tenure.keeper,
        )
        try:
            return await ask(link, order, wire.Assigned, within=limits.ANSWER_AFTER)
        except BaseException:  # cancelled, too: the link is gone
            with trio.move_on_after(limits.TERM_AFTER, shield=True):
                await self._lose_absent(heir)
            raise

    async def _lose_absent(self, heir: Heir) -> None:
        """Tell the engine of a member that it still has, and that nobody brings back.

        Its tasks wait for it, else.
        """
        text = f"{heir.name} did not come back to {self.name}"
        self.history.add("worker.missed", text, worker=heir.name, group=self.name)
        if self.running is not None:
            with self._plugin_faults(f"losing {heir.name}"):
                await self.running.lost(Absent(heir.name, heir.label))

    def _member(
        self,
        record: WorkerRecord,
        link: Link,
        dial_stream: DialStream,
        *,
        heir: Heir,
        assigned: wire.Assigned,
    ) -> RemoteMember:
        facts, questions = record.facts, self._questions
        remote = link.connection.remote
        address = member_host(remote, record.places, assigned.host)
        left = _Left(self.succession, record.key_id, heir)
        self._close_ports(record.key_id)
        ports = self._ports[record.key_id] = record.ports = MemberReach(
            name=record.name,
            host=address,
            link=link,
            dial_stream=dial_stream,
            generation=heir.generation,
            wish=_wish(facts, assigned),
            gate=self._gate,
            sources=frozenset(one.source for one in (remote, *record.places)),
            is_member=self._is_member,
            note=left.note_ports,
            tell=partial(self._tell_way, record.name),
            wall=self._wall,
        )
        return RemoteMember(
            name=record.name,
            label=heir.label,
            address=address,
            cores=facts.cores if facts else 1,
            memory=facts.memory if facts else 0,
            generation=heir.generation,
            link=link,
            dial_stream=dial_stream,
            certificate=self.authority.sign_untrusted(assigned.csr, name=heir.label),
            authority=self.authority.certificate_pem,
            next_job=self._next_job,
            wall=self._wall,
            delegation=lambda: self.delegation,
            note=left.note_job,
            ports=ports,
            left=heir.jobs,
            asked=questions.by(self.name, record.name) if questions else None,
            spawn=questions.spawn if questions else None,
            tie=self._tie,
        )

    def _is_member(self, remote: Address) -> bool:
        """Whether somebody from there may be a member, the head or a client."""
        here = remote.host == self._gate.host() or remote.ip.is_loopback
        return here or any(remote.source in one.sources for one in self._ports.values())

    def _tell_way(self, name: NodeName, way: Way) -> None:
        if way.forwarded:
            text = f"what {name} serves goes through this master: {way.why}"
            self.history.add("worker.forwarded", text, worker=name, group=self.name)

    async def _miss(self) -> None:
        """Go on without the members of a former master that do not come back."""
        if not self.succession.expected:
            return
        await trio.sleep(limits.ADOPT_AFTER)
        missed = dict(self.succession.expected)
        self.succession.expected.clear()
        for key_id, heir in missed.items():
            await self._lose_absent(heir)
            if key_id not in self.members.keys() | self._coming:
                await self.succession.forget_member(key_id)
        self._tell_changed()

    async def _bring_up(
        self,
        running: RunningEngine,
        member: RemoteMember,
        ports: MemberReach,
        heir: Heir,
    ) -> None:
        """Add a member to the engine; leave nothing of it there if that fails."""
        try:
            with (
                self._plugin_faults(f"adding {member.name}"),
                trio.fail_after(limits.MEMBER_ADD_AFTER),
            ):
                await ports.resume(dict(heir.ports), heir.at)
                await running.add(member)
        except BaseException as exc:
            member.dismiss()
            with trio.move_on_after(limits.TERM_AFTER, shield=True):
                await running.lost(member)
            ports.close()
            if isinstance(exc, trio.TooSlowError):
                why = f"not up within {limits.MEMBER_ADD_AFTER:g} s"
                what = f"{self.engine.name} on {member.name}"
                raise EngineError(what, why=why) from None
            raise

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
                with (
                    self._plugin_faults(f"retiring {record.name}"),
                    trio.move_on_after(by_after + limits.TERM_AFTER),
                ):
                    receipt = await self.running.retire(
                        member, by_after=by_after, haste=haste
                    )
        except (AemeshError, trio.TooSlowError) as exc:
            if self.suspended:  # its next life may go on with the member
                self._remove(record)
                raise
            assert member is not None, "only an engine fails to let one go"
            await self._drop(member, str(exc) or "it took too long")
        self._remove(record)
        await self.succession.forget_member(record.key_id)
        return replace(receipt, took_after=trio.current_time() - started)

    async def _drop(self, member: RemoteMember, why: str) -> None:
        """Go on without a member that the engine could not let go gracefully.

        Who was promised its machine is not to wait for an engine.
        """
        text = f"{self.engine.name} did not let {member.name} go: {why}"
        self.history.add("engine.broken", text, worker=member.name, group=self.name)
        if self.running is None:
            return
        try:
            with self._plugin_faults(f"losing {member.name}"):
                await self.running.lost(member)
        except (AemeshError, trio.TooSlowError) as exc:
            _log.info("it did not take note of its loss either: %s", exc)

    async def expect(self, record: WorkerRecord, *, by_after: float | None) -> bool:
        """Tell the engine when a member leaves, or that it stays; False: it cannot."""
        member = self.members.get(record.key_id)
        running: object = self.running
        if member is None or not isinstance(running, Departing):
            return False
        with self._plugin_faults(f"expecting {record.name} to leave"):
            await running.expect(member, by_after=by_after)
        return True

    async def progress(self, record: WorkerRecord) -> Progress | None:
        """Return how far a member's departure is, if the engine tells."""
        member = self.members.get(record.key_id)
        running: object = self.running
        if member is None or not isinstance(running, Departing):
            return None
        with self._plugin_faults(f"telling how {record.name} leaves"):
            return await running.progress(member)

    async def lose(self, record: WorkerRecord, member: RemoteMember | None) -> None:
        """Go on without a worker that is gone."""
        self._remove(record)
        if self.suspended:
            return  # it is met again, or missed, in the next life
        if member is not None and self.running is not None:
            with self._plugin_faults(f"losing {record.name}"):
                await self.running.lost(member)
        await self.succession.forget_member(record.key_id)

    def hand_back(self, record: WorkerRecord) -> None:
        """Part with a member that goes on as it is, for the next life to adopt."""
        self._remove(record)

    @contextmanager
    def _plugin_faults(self, what: str) -> Iterator[None]:
        """Make an error of the engine's out of whatever its plug-in raises."""
        try:
            yield
        except (AemeshError, trio.TooSlowError):
            raise
        except Exception as exc:
            _log.exception("engine %s met a bug when %s", self.engine.name, what)
            text = f"engine {self.engine.name} met a bug when {what}"
            raise EngineError(text, why=type(exc).__name__) from exc

    async def idle_after(self) -> Mapping[KeyId, float]:
        """Return seconds since each member's last work; 0.0 while it works.

        The engine says it where it can.  Else a member works while a job of it runs,
        as it does, either way, while a command of `aemesh exec` runs there.
        """
        members = dict(self.members)
        running: object = self.running
        if isinstance(running, Idling):
            with self._plugin_faults("telling who is idle"):
                told = await running.idle_after()
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
        self._tell_changed()

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
                self._tell_changed()
                return

    async def open_page(self) -> Page:
        """Open a connection to the engine's web page; raises `EngineError`."""
        running: object = self._engine()
        if not isinstance(running, Showing):
            msg = f"engine {self.engine.name} has no page to be shown"
            raise EngineError(msg)
        with self._plugin_faults("opening its page"):
            return await running.open_page()

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

    def _engine(self) -> RunningEngine:
        if self.running is None:
            why = self.note or f"the group is {self.state}"
            msg = f"group {self.name} has no engine"
            raise EngineError(msg, why=why)
        return self.running

    def _remove(self, record: WorkerRecord) -> None:
        self._broken.discard(record.key_id)
        self._stale.pop(record.key_id, None)
        self._close_ports(record.key_id)
        member = self.members.pop(record.key_id, None)
        if member is not None:
            member.dismiss()
            self._tell_changed()

    def _close_ports(self, key_id: KeyId) -> None:
        ports = self._ports.pop(key_id, None)
        if ports is not None:
            ports.close()

    def _become(self, state: str) -> None:
        self.state = state
        self._tell_changed()

    def _tell_changed(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _next_label(self, name: str, generation: int) -> str:
        """Return a label that nobody had: two machines may go by one name.

        A machine that was set up anew counts its generations from one again.  Cut,
        because the label has to fit into a certificate's common name as a whole.
        """
        name = name[:_LABEL_NAME_LENGTH]
        number = max(generation, self._labels.get(name, 0) + 1)
        self._labels[name] = number
        return f"{name}.{number}"

    def _next_job(self) -> JobId:
        return JobId(f"{self.name[:32]}-{self._id}-{next(self._numbers)}")


def _wish(facts: Facts | None, assigned: wire.Assigned) -> Forward:
    """Return how a worker wants its ports reached; an older one knows one way."""
    if facts is None or not assigned.host:
        return Forward.NO
    return facts.forward


def _labels_of(heirs: Iterable[Heir]) -> dict[str, int]:
    labels: dict[str, int] = {}
    for heir in heirs:
        name, _, number = heir.label.rpartition(".")
        if number.isdigit():
            labels[name] = max(int(number), labels.get(name, 0))
    return labels
