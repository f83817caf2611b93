"""Masters, workers and wires in virtual time, from the real policies and sessions.

What the roles do with trio is done here by hand, in as few lines as go: a master keeps
a `Membership` for each worker and asks it to serve where `allocate` says; a worker
keeps its `Tenancy`, and jobs of its present lease.  Between them are wires: two
`Session`s, and bytes under way that may be slow, held by a cut, or never come.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.model.group import Demand, Lease, MemberState
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.policy.clones import SecondLink, second_link
from aemesh.policy.grouping import Candidate, Plan, allocate
from aemesh.policy.lease import Tenancy
from aemesh.policy.membership import LINKED_STATES, Happening, Membership
from aemesh.protocol import wire
from aemesh.protocol.session import Answer, Notice, Pulse, Request, Session

STEP = 0.25
# A refused assignment is tried again: the real one waits for the worker's word.
AGAIN_AFTER = 2.0
# An engine's time to let a member go; meanwhile it may be told to stay, or to wait.
RETIRES_AFTER = 1.0
PUT_OFF_BY = 8.0
DELAYS = (0.3, 1.5, 3.0, 6.0)
# What was under way comes first, and then there is silence.
STALE_AFTER = limits.LOST_AFTER + max(DELAYS) + 2 * STEP
COMMANDS = (wire.Assign, wire.Start, wire.Release)


class End:
    """One side of a wire."""

    def __init__(self, now: float) -> None:
        self.session = Session(now=now)
        self.open = True
        self.under_way: list[tuple[float, bytes | None]] = []  # None: it was closed
        self.asked: dict[int, wire.Body] = {}
        self.repeated: set[int] = set()  # of these, what was said again
        self.other: End


class Wire:
    """A link between a master and a worker."""

    def __init__(self, master: SimMaster, worker: SimWorker, now: float) -> None:
        self.master, self.worker = master, worker
        self.run = (master.run, worker.run)
        self.came_at = now
        self.ends = {"master": End(now), "worker": End(now)}
        self.ends["master"].other = self.ends["worker"]
        self.ends["worker"].other = self.ends["master"]

    def __repr__(self) -> str:
        return f"<Wire {self.master.name}-{self.worker.name}>"


@dataclass(eq=False)
class SimWorker:
    """A worker; its generation outlives its process."""

    name: str
    key: KeyId
    run: int = 0
    alive: bool = False
    generation: int = 0
    jobs: dict[int, int] = field(default_factory=dict)  # number: generation
    tenancy: Tenancy = field(init=False)
    links: dict[KeyId, Wire] = field(default_factory=dict)
    waiting: list[Wire] = field(default_factory=list)  # second links of one master
    orphaned_at: float | None = None

    def start(self) -> None:
        self.alive, self.run = True, self.run + 1
        self.tenancy = Tenancy(self.key, generation=self.generation)


@dataclass(eq=False)
class SimMaster:
    """A master; what it wrote down outlives its process."""

    name: str
    key: KeyId
    demands: dict[GroupName, Demand]
    run: int = 0
    alive: bool = False
    stored: dict[KeyId, tuple[int, GroupName | None]] = field(default_factory=dict)
    members: dict[KeyId, Membership] = field(default_factory=dict)
    serving: dict[KeyId, GroupName] = field(default_factory=dict)  # can take work
    links: dict[KeyId, Wire] = field(default_factory=dict)
    busy: set[KeyId] = field(default_factory=set)  # something is asked of them
    pinned: dict[KeyId, GroupName] = field(default_factory=dict)
    held: dict[KeyId, KeyId] = field(default_factory=dict)  # as the worker says
    leaves: set[KeyId] = field(default_factory=set)
    retiring: dict[KeyId, float] = field(default_factory=dict)  # done then
    vacant: dict[KeyId, float] = field(default_factory=dict)  # kept until then
    again_at: dict[KeyId, float] = field(default_factory=dict)
    said: list[tuple[KeyId, wire.Body]] = field(default_factory=list)

    def start(self) -> None:
        self.alive, self.run = True, self.run + 1
        self.members = {
            key: Membership(generation=gen) for key, (gen, _) in self.stored.items()
        }


class Office:
    """All of them, and the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.wall_off = 1.7e9
        self.masters: list[SimMaster] = []
        self.workers: list[SimWorker] = []
        self.wires: list[Wire] = []
        self.cut: set[frozenset[str]] = set()
        self.slow: dict[frozenset[str], float] = {}
        self.highest: dict[KeyId, int] = {}
        self.stale_since: dict[tuple[KeyId, KeyId], float] = {}
        self.refused = 0  # late messages that were told so
        self.late = 0  # late messages, as far as the office knows
        self._jobs = 0

    # --- faults ---

    def kill(self, one: SimMaster | SimWorker, *, silent: bool) -> None:
        """End a process; its kernel tells the peers, unless the machine went down."""
        one.alive = False
        for wire_ in self.wires:
            side = _side(wire_, one)
            if side is not None and wire_.ends[side].open:
                self._shut(wire_, side, told=not silent)
        one.links.clear()
        if isinstance(one, SimWorker):
            one.jobs.clear()  # its warden's, or the machine's, doing
            one.waiting.clear()
            one.orphaned_at = None
        else:
            for left in (one.serving, one.busy, one.held, one.leaves, one.again_at):
                left.clear()
            one.retiring.clear()
            one.vacant.clear()

    def repeat(self, master: SimMaster, worker: SimWorker, body: wire.Body) -> None:
        """Say an old command of this master's again, on the link there is now."""
        if (link := master.links.get(worker.key)) is not None:
            link.ends["master"].repeated.add(self._ask(link, body))

    def put_off(self, master: SimMaster, worker: SimWorker) -> None:
        """Have a member that is retiring go later."""
        if worker.key in master.retiring:
            master.retiring[worker.key] += PUT_OFF_BY

    def stay(self, master: SimMaster, worker: SimWorker) -> None:
        """Have a worker that leaves stay after all, if it is not too late."""
        key = worker.key
        if key in master.leaves:
            master.leaves.discard(key)
            if master.retiring.pop(key, None) is not None:
                self._step(master, key, Happening.STAYS)

    def poach(self, master: SimMaster, worker: SimWorker) -> None:
        """Have a master ask for a worker whoever holds it, with the next number."""
        key = worker.key
        link, member = master.links.get(key), master.members.get(key)
        if link is None or member is None or key in master.busy:
            return
        if member.state is MemberState.TRUSTED:
            member.know_generation(worker.generation)
            self._assign(master, key, link, sorted(master.demands)[0])

    def is_cut(self, master: SimMaster, worker: SimWorker) -> bool:
        """Whether nothing passes between the two."""
        return frozenset((master.name, worker.name)) in self.cut

    # --- time ---

    def advance(self, seconds: float) -> None:
        """Let time pass; whatever is due happens, in small steps."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + STEP, end)
            self.turn()

    def turn(self) -> None:
        """Do all that is due now."""
        for wire_ in list(self.wires):
            self._pump(wire_, "master")
            self._pump(wire_, "worker")
        for wire_ in list(self.wires):
            self._tick(wire_)
        self.wires = [w for w in self.wires if any(e.open for e in w.ends.values())]
        for worker in self.workers:
            if worker.alive:
                self._settle_second(worker)
                self._free_orphan(worker)
        for master in self.masters:
            if master.alive:
                self._act(master)

    def _pump(self, wire_: Wire, side: str) -> None:
        end = wire_.ends[side]
        if self.is_cut(wire_.master, wire_.worker):
            return
        while end.open and end.under_way and end.under_way[0][0] <= self.now:
            _, data = end.under_way.pop(0)
            if data is None:
                self._ended(wire_, side, bye=False)
                return
            for event in end.session.receive_untrusted(data, self.now):
                if end.open:
                    self._take(wire_, side, event)

    def _tick(self, wire_: Wire) -> None:
        for side, end in wire_.ends.items():
            if not end.open:
                continue
            before = end.session.pulse
            pulse = end.session.tick(self.now)
            self._send(wire_, side, end.session.unsent())
            if pulse is Pulse.LOST:
                self._ended(wire_, side, bye=False)
            elif side == "master" and pulse is not before:
                happening = {Pulse.SUSPECT: Happening.SILENT}.get(
                    pulse, Happening.HEARD
                )
                self._step(wire_.master, wire_.worker.key, happening)

    def _send(self, wire_: Wire, side: str, data: bytes | None) -> None:
        if data == b"":
            return
        other = wire_.ends[side].other
        delay = self.slow.get(frozenset((wire_.master.name, wire_.worker.name)), 0.0)
        due = self.now + delay
        if other.under_way:  # one connection: nothing overtakes
            due = max(due, other.under_way[-1][0])
        other.under_way.append((due, data))

    def _shut(self, wire_: Wire, side: str, *, told: bool) -> None:
        wire_.ends[side].open = False
        if told:
            self._send(wire_, side, None)

    # --- messages ---

    def _ask(self, wire_: Wire, body: wire.Body) -> int:
        end = wire_.ends["master"]
        number, data = end.session.request(body, self.now)
        end.asked[number] = body
        wire_.master.said.append((wire_.worker.key, body))
        del wire_.master.said[:-40]
        self._send(wire_, "master", data)
        return number

    def _take(self, wire_: Wire, side: str, event: Request | Notice | Answer) -> None:
        match event:
            case Notice(wire.Bye()):
                self._ended(wire_, side, bye=True)
            case Notice(wire.WorkerFacts() as facts) if side == "master":
                self._learn(wire_.master, wire_.worker.key, facts)
            case Request(number, body) if side == "worker":
                answer = self._obey(wire_, body)
                data = wire_.ends[side].session.answer(number, answer, self.now)
                self._send(wire_, side, data)
            case Answer(number, body) if side == "master":
                end = wire_.ends[side]
                asked = end.asked.pop(number)
                if number not in end.repeated:
                    self._answered(wire_, asked, body)

    def _learn(self, master: SimMaster, key: KeyId, facts: wire.WorkerFacts) -> None:
        master.members[key].know_generation(facts.generation)
        master.held.pop(key, None)
        if facts.lease is not None:
            master.held[key] = KeyId.parse_untrusted(facts.lease.master)
        if master.members[key].state is not MemberState.TRUSTED:
            return
        master.busy.discard(key)
        ours = facts.lease is not None and master.held[key] == master.key
        if facts.lease is not None and ours and key not in master.vacant:
            # Of a link, or a life, before: given back, or nobody else ever gets it.
            master.busy.add(key)
            body = wire.Release(generation=facts.lease.generation, term_after=0.0)
            self._ask(master.links[key], body)

    # --- the worker ---

    def _obey(self, wire_: Wire, body: wire.Body) -> wire.Body:
        worker, master = wire_.worker, wire_.master.key
        generation = getattr(body, "generation", 0)
        late = generation < worker.tenancy.generation
        self.late += late
        before = (worker.tenancy.lease, dict(worker.jobs))
        counts = worker.links.get(master) is wire_
        try:
            self._do(worker, master if counts else worker.key, body)
        except RefusedError as exc:
            self.refused += late
            assert (worker.tenancy.lease, worker.jobs) == before
            return wire.Failed(error=exc.name, what=str(exc))
        if late:  # a release that is over is no error, and does nothing
            assert isinstance(body, wire.Release)
            assert (worker.tenancy.lease, worker.jobs) == before
            self.refused += 1
        if worker.tenancy.lease is not before[0]:
            self._tell_facts(worker)
        return wire.Done()

    def _do(self, worker: SimWorker, master: KeyId, body: wire.Body) -> None:
        match body:
            case wire.Assign(group=group, generation=generation):
                worker.tenancy.assign(master, GroupName(group), generation)
                worker.generation = generation
                worker.jobs.clear()
            case wire.Start(generation=generation):
                worker.tenancy.holds(master, generation)
                self._jobs += 1
                worker.jobs[self._jobs] = generation
            case wire.Release(generation=generation, again=again):
                if worker.tenancy.ends(master, generation):
                    worker.jobs.clear()
                end = worker.tenancy.vacate if again else worker.tenancy.release
                end(master, generation)

    def _free_orphan(self, worker: SimWorker) -> None:
        lease = worker.tenancy.lease
        if lease is None or lease.master in worker.links:
            worker.orphaned_at = None
            return
        if worker.orphaned_at is None:
            worker.orphaned_at = self.now
        if self.now >= worker.orphaned_at + limits.ORPHANED_JOB_AFTER:
            worker.tenancy.release(lease.master, lease.generation)
            worker.jobs.clear()
            self._tell_facts(worker)

    def _settle_second(self, worker: SimWorker) -> None:
        for wire_ in list(worker.waiting):
            older = worker.links.get(wire_.master.key)
            seen = SecondLink.TAKES
            if older is not None:
                seen = second_link(
                    str(older.run[0]),
                    str(wire_.run[0]),
                    came_at=wire_.came_at,
                    heard_at=older.ends["worker"].session.heard_at,
                    now=self.now,
                )
            if seen is SecondLink.WAITS:
                continue
            worker.waiting.remove(wire_)
            if not wire_.ends["worker"].open:
                continue
            if seen is SecondLink.REFUSED:
                self._shut(wire_, "worker", told=True)
                continue
            if older is not None:
                self._shut(older, "worker", told=True)
            self._link(wire_)

    def _link(self, wire_: Wire) -> None:
        wire_.worker.links[wire_.master.key] = wire_
        self._tell_facts(wire_.worker)

    def _tell_facts(self, worker: SimWorker) -> None:
        lease = worker.tenancy.lease
        held = None if lease is None else _held_by(lease)
        facts = wire.WorkerFacts(
            cores=1,
            memory=1,
            python="3",
            system="x",
            generation=worker.tenancy.generation,
            groups=(),
            lease=held,
        )
        for wire_ in worker.links.values():
            end = wire_.ends["worker"]
            self._send(wire_, "worker", end.session.notice(facts, self.now))

    # --- the master ---

    def _act(self, master: SimMaster) -> None:
        for worker in self.workers:
            self._dial(master, worker)
        plan = self.plan(master)
        for key, link in list(master.links.items()):
            if key not in master.busy and link.ends["master"].open:
                self._next_order(master, key, link, plan)

    def plan(self, master: SimMaster) -> Plan:
        """Return where this master wants whom it could have."""
        return allocate(self.candidates(master), master.demands)

    def candidates(self, master: SimMaster) -> list[Candidate]:
        """Return whom it could have: linked, and held by nobody else."""
        found = []
        for key in master.links:
            member = master.members[key]
            if master.held.get(key, master.key) != master.key or key in master.leaves:
                continue
            if member.state in (MemberState.LINKED, MemberState.DRAINING):
                continue
            found.append(
                Candidate(
                    key=str(key),
                    allowed=frozenset(master.demands),
                    group=member.group,
                    last=master.stored.get(key, (0, None))[1],
                    pinned=master.pinned.get(key),
                )
            )
        return found

    def _dial(self, master: SimMaster, worker: SimWorker) -> None:
        if (
            worker.key in master.links
            or not worker.alive
            or self.is_cut(master, worker)
            or self.now < master.again_at.get(worker.key, 0.0)
        ):
            return
        wire_ = Wire(master, worker, self.now)
        self.wires.append(wire_)
        master.members.setdefault(worker.key, Membership())
        if master.members[worker.key].state in LINKED_STATES:
            msg = "dialled while linked"
            raise AssertionError(msg)
        self._step(master, worker.key, Happening.LINKED)
        self._step(master, worker.key, Happening.ACCEPTED)
        master.links[worker.key] = wire_
        master.busy.add(worker.key)  # until its facts have come
        worker.waiting.append(wire_)

    def _next_order(
        self, master: SimMaster, key: KeyId, link: Wire, plan: Plan
    ) -> None:
        member = master.members[key]
        wanted = plan.placements.get(str(key))
        goes_to = None if wanted is None else wanted.group
        if key in master.retiring:
            if self.now >= master.retiring[key]:
                again = key not in master.leaves and goes_to is not None
                self._let_go(master, key, link, again=again)
        elif member.state is MemberState.DRAINING:
            self._let_go(master, key, link)
        elif member.group is not None:
            moves = wanted is not None and goes_to != member.group
            if key in master.leaves or moves:
                self._step(master, key, Happening.LEAVING)
                master.retiring[key] = self.now + RETIRES_AFTER
        elif self._is_kept_in_vain(master, key, goes_to):
            master.busy.add(key)
            generation = member.generation
            self._ask(link, wire.Release(generation=generation, term_after=0.0))
        elif key in master.leaves:
            master.leaves.discard(key)
            data = link.ends["master"].session.notice(wire.Bye(), self.now)
            self._send(link, "master", data)
            self._ended(link, "master", bye=True)
        elif (
            goes_to is not None
            and self._has_room(master, goes_to)
            and self.now >= master.again_at.get(key, 0.0)
        ):
            self._assign(master, key, link, goes_to)

    def _is_kept_in_vain(
        self, master: SimMaster, key: KeyId, goes_to: GroupName | None
    ) -> bool:
        """Whether a worker between two groups is to be given back now."""
        if key not in master.vacant:
            return False
        if goes_to is None:
            latest = self.now + limits.UNPLACED_AFTER
            master.vacant[key] = min(master.vacant[key], latest)
        return key in master.leaves or self.now >= master.vacant[key]

    @staticmethod
    def _has_room(master: SimMaster, name: GroupName) -> bool:
        most = master.demands[name].max
        there = sum(member.group == name for member in master.members.values())
        return most is None or there < most

    def _assign(
        self, master: SimMaster, key: KeyId, link: Wire, name: GroupName
    ) -> None:
        generation = master.members[key].assign(name, now=self.wall)
        master.stored[key] = (generation, name)
        master.busy.add(key)
        self._ask(link, wire.Assign(group=name, generation=generation))

    def _let_go(
        self, master: SimMaster, key: KeyId, link: Wire, *, again: bool = False
    ) -> None:
        self._step(master, key, Happening.LEAVING)
        master.serving.pop(key, None)
        master.retiring.pop(key, None)
        master.busy.add(key)
        generation = master.members[key].generation
        body = wire.Release(generation=generation, term_after=0.0, again=again)
        self._ask(link, body)

    def _answered(self, wire_: Wire, asked: wire.Body, body: wire.Body) -> None:
        member = wire_.master.members[wire_.worker.key]
        serves = member.state in (MemberState.LEASED, MemberState.SUSPECT)
        match asked:
            case wire.Assign() if serves:
                self._assigned(wire_, body)
            case wire.Start():
                self._started(wire_, body, serves=serves)
            case wire.Release():
                self._released(wire_, again=asked.again)

    def _assigned(self, wire_: Wire, body: wire.Body) -> None:
        master, key = wire_.master, wire_.worker.key
        if isinstance(body, wire.Failed):
            master.again_at[key] = self.now + AGAIN_AFTER
            self._let_go(master, key, wire_, again=key in master.vacant)
        elif key in master.busy:
            generation = master.members[key].generation
            job = f"{master.name}-1"
            start = wire.Start(job=job, generation=generation, argv=("x",))
            self._ask(wire_, start)

    def _started(self, wire_: Wire, body: wire.Body, *, serves: bool) -> None:
        master, key = wire_.master, wire_.worker.key
        group = master.members[key].group
        master.busy.discard(key)
        if isinstance(body, wire.Failed):
            self._let_go(master, key, wire_, again=key in master.vacant)
        elif serves and group is not None:
            master.serving[key] = group
            master.vacant.pop(key, None)

    def _released(self, wire_: Wire, *, again: bool) -> None:
        master, key = wire_.master, wire_.worker.key
        if again:
            master.vacant[key] = self.now + limits.VACANT_AFTER
        else:
            master.vacant.pop(key, None)
        if master.members[key].state is MemberState.DRAINING:
            self._step(master, key, Happening.RETIRED)
        if master.members[key].state is MemberState.TRUSTED:
            master.busy.discard(key)

    # --- both ---

    def _ended(self, wire_: Wire, side: str, *, bye: bool) -> None:
        """One side saw, or decided, that the wire is at its end."""
        if not wire_.ends[side].open:
            return
        self._shut(wire_, side, told=True)
        key = wire_.worker.key
        if side == "worker":
            if wire_.worker.links.get(wire_.master.key) is wire_:
                del wire_.worker.links[wire_.master.key]
            return
        master = wire_.master
        if master.links.get(key) is not wire_:
            return
        del master.links[key]
        master.busy.discard(key)
        for left in (master.serving, master.held, master.retiring, master.vacant):
            left.pop(key, None)
        at_ease = bye and master.members[key].group is None
        self._step(master, key, Happening.PARTED if at_ease else Happening.BROKEN)
        master.again_at[key] = self.now + limits.REDIAL_AFTER

    def _step(self, master: SimMaster, key: KeyId, happening: Happening) -> None:
        master.members[key].step(happening, now=self.wall)

    @property
    def wall(self) -> float:
        """The time of day, which somebody may set."""
        return self.now + self.wall_off

    # --- what always holds ---

    def check(self) -> None:
        """Assert what always holds, whatever went wrong."""
        for worker in self.workers:
            if worker.alive:
                self._check_worker(worker)
            self._check_engines(worker)
        for master in self.masters:
            for member in master.members.values():
                member.check()
            for key in master.serving:
                assert master.members[key].group == master.serving[key]
        for wire_ in self.wires:
            for end in wire_.ends.values():
                end.session.check()
        assert self.refused == self.late

    def _check_worker(self, worker: SimWorker) -> None:
        worker.tenancy.check()
        lease = worker.tenancy.lease
        assert not worker.jobs or lease is not None, "a job without a lease"
        assert not (worker.jobs and worker.tenancy.vacant), "a job of what has ended"
        assert all(g == lease.generation for g in worker.jobs.values() if lease)
        highest = self.highest.get(worker.key, 0)
        assert worker.generation >= highest, "a generation fell"
        self.highest[worker.key] = worker.generation

    def _check_engines(self, worker: SimWorker) -> None:
        """No two masters have it; and none believes for long what is over.

        A master that is told late, or by nobody, shows a worker as its own that has
        another lease by now; it finds out by the silence, and no command of it counts.
        """
        found = []
        for master in self.masters:
            key = (master.key, worker.key)
            link = worker.links.get(master.key)
            if worker.key not in master.serving:
                self.stale_since.pop(key, None)
            elif link is not None and link is master.links[worker.key]:
                self.stale_since.pop(key, None)
                found.append(master)
            else:
                since = self.stale_since.setdefault(key, self.now)
                assert self.now - since <= STALE_AFTER, f"{master.name} believes on"
        assert len(found) <= 1, f"{worker.name} serves twice: {found}"

    def settled(self) -> None:
        """Assert what holds once all are up, nothing is cut, and time has passed."""
        for worker in self.workers:
            lease = worker.tenancy.lease
            serving = [m for m in self.masters if worker.key in m.serving]
            states = {m.name: m.members[worker.key] for m in self.masters}
            assert not worker.tenancy.vacant, f"{worker.name} is kept for nothing"
            assert [m.key for m in serving] == ([lease.master] if lease else []), (
                f"{worker.name} has {lease}, its masters {states}"
            )
            if lease is not None:
                assert serving[0].serving[worker.key] == lease.group
                assert set(worker.jobs.values()) == {lease.generation}
        for master in self.masters:
            assert master.links.keys() == {one.key for one in self.workers}
            plan, could = self.plan(master), self.candidates(master)
            assert not plan.moves(could), "somebody is not where it should be"
            self._check_demands(master, len(could))

    def _check_demands(self, master: SimMaster, could: int) -> None:
        counts = dict.fromkeys(master.demands, 0)
        for group in master.serving.values():
            counts[group] += 1
        demands = master.demands
        assert all(counts[g] <= (demands[g].max or 99) for g in demands)
        pinned = any(key in master.serving for key in master.pinned)
        if not pinned and could >= sum(one.min for one in demands.values()):
            assert all(counts[g] >= demands[g].min for g in demands), counts


def _held_by(lease: Lease) -> wire.HeldBy:
    return wire.HeldBy(
        master=str(lease.master),
        name="someone",
        group=lease.group,
        generation=lease.generation,
    )


def _side(wire_: Wire, one: SimMaster | SimWorker) -> str | None:
    if wire_.master is one:
        return "master"
    return "worker" if wire_.worker is one else None
