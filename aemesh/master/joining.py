"""How a worker becomes a member of a group: newly, or left by a former master.

It takes a lease, or goes on with the one that it has; its key is signed, its ports are
made reachable, and the engine is brought up on it.  What fails leaves nothing there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import EngineError, UnreachableError
from aemesh.master.asked import Questions
from aemesh.master.delegation import Delegation
from aemesh.master.history import History
from aemesh.master.kept import Heir
from aemesh.master.labels import Labels
from aemesh.master.plugged import Plugged
from aemesh.master.reach import Gate, MemberReach
from aemesh.master.remote import DialStream, RemoteMember, Tie, ask
from aemesh.master.succession import Succession
from aemesh.model.key import KeyId
from aemesh.model.machine import Facts, Forward
from aemesh.model.names import GroupName, JobId, NodeName
from aemesh.plugin import Member
from aemesh.policy.reach import member_host
from aemesh.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aemesh.master.probing import Way
    from aemesh.master.record import WorkerRecord
    from aemesh.model.address import Address
    from aemesh.model.job import JobSpec
    from aemesh.net.link import Link
    from aemesh.plugin import Job


@dataclass(frozen=True, slots=True)
class Tenure:
    """What a master says to its workers about the time when it is out of sight."""

    kept_after: float = 0.0  # seconds that they wait for it
    heirs: tuple[str, ...] = ()  # masters that may take its place
    keeper: wire.Keeper | None = None  # where its heads are, for these


FLEETING = Tenure()


@dataclass(frozen=True, slots=True, kw_only=True)
class Joining:
    """The way into one group while its engine is up."""

    group: GroupName
    engine: Plugged
    lose: Callable[[Member], Awaitable[None]]  # tells the engine, if it is up still
    crew: trio.Nursery  # where ports of members are served
    succession: Succession
    history: History
    gate: Gate
    tenure: Tenure
    questions: Questions | None
    delegation: Callable[[], Delegation | None]
    next_job: Callable[[], JobId]
    labels: Labels
    tie: Tie
    wall: Callable[[], float]
    ports: dict[KeyId, MemberReach] = field(default_factory=dict)  # and who comes

    async def join(
        self, record: WorkerRecord, link: Link, dial_stream: DialStream
    ) -> RemoteMember:
        """Take an assigned worker in; returns when it can take work.

        Raises `EngineError`, `UnreachableError` or `RequestFailedError`.
        """
        generation = record.membership.generation
        left = self.succession.expected.pop(record.key_id, None)
        if left is not None and left.generation == generation:
            heir, assigned = left, await self._take_hold(left, link)
        else:
            if left is not None:  # it has begun anew, without what ran there
                await self.miss(left)
            label = self.labels.next(record.name, generation)
            heir = Heir(record.name, label, generation, ())
            order = wire.Assign(
                group=self.group,
                generation=generation,
                kept_after=self.tenure.kept_after,
                heirs=self.tenure.heirs,
                keeper=self.tenure.keeper,
            )
            assigned = await ask(link, order, wire.Assigned, within=limits.ANSWER_AFTER)
        member = self._member(record, link, dial_stream, heir=heir, assigned=assigned)
        ports = self.ports[record.key_id]
        await self.crew.start(ports.run)
        await self._bring_up(member, ports, heir)
        return member

    async def miss(self, heir: Heir) -> None:
        """Tell the engine of a member that it still has, and that nobody brings back.

        Its tasks wait for it, else.
        """
        text = f"{heir.name} did not come back to {self.group}"
        self.history.add("worker.missed", text, worker=heir.name, group=self.group)
        await self.lose(Absent(heir.name, heir.label))

    def close_ports(self, key_id: KeyId) -> None:
        """Nobody reaches ports of this member any more."""
        ports = self.ports.pop(key_id, None)
        if ports is not None:
            ports.close()

    async def _take_hold(self, heir: Heir, link: Link) -> wire.Assigned:
        """Adopt a member; the engine is told of the loss of one that does not go on."""
        order = wire.Adopt(
            group=self.group,
            generation=heir.generation,
            kept_after=self.tenure.kept_after,
            heirs=self.tenure.heirs,
            keeper=self.tenure.keeper,
        )
        try:
            return await ask(link, order, wire.Assigned, within=limits.ANSWER_AFTER)
        except BaseException:  # cancelled, too: the link is gone
            if not self.tie.is_cut:
                with trio.move_on_after(limits.TERM_AFTER, shield=True):
                    await self.miss(heir)
            raise

    def _member(
        self,
        record: WorkerRecord,
        link: Link,
        dial_stream: DialStream,
        *,
        heir: Heir,
        assigned: wire.Assigned,
    ) -> RemoteMember:
        facts, questions = record.facts, self.questions
        remote = link.connection.remote
        address = member_host(remote, record.places, assigned.host)
        authority = self.succession.authority
        left = _Left(self.succession, record.key_id, heir)
        self.close_ports(record.key_id)
        ports = self.ports[record.key_id] = record.ports = MemberReach(
            name=record.name,
            host=address,
            link=link,
            dial_stream=dial_stream,
            generation=heir.generation,
            wish=_wish(facts, assigned),
            gate=self.gate,
            sources=frozenset(one.source for one in (remote, *record.places)),
            is_member=self._is_member,
            note=left.note_ports,
            tell=partial(self._tell_way, record.name),
            wall=self.wall,
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
            certificate=authority.sign_untrusted(assigned.csr, name=heir.label),
            authority=authority.certificate_pem,
            next_job=self.next_job,
            wall=self.wall,
            delegation=self.delegation,
            note=left.note_job,
            ports=ports,
            left=heir.jobs,
            asked=questions.by(self.group, record.name) if questions else None,
            spawn=questions.spawn if questions else None,
            tie=self.tie,
        )

    def _is_member(self, remote: Address) -> bool:
        """Whether somebody from there may be a member, the head or a client."""
        here = remote.host == self.gate.host() or remote.ip.is_loopback
        return here or any(remote.source in one.sources for one in self.ports.values())

    def _tell_way(self, name: NodeName, way: Way) -> None:
        if way.forwarded:
            text = f"what {name} serves goes through this master: {way.why}"
            self.history.add("worker.forwarded", text, worker=name, group=self.group)

    async def _bring_up(
        self, member: RemoteMember, ports: MemberReach, heir: Heir
    ) -> None:
        """Add a member to the engine; leave nothing of it there if that fails."""
        try:
            with trio.fail_after(limits.MEMBER_ADD_AFTER):
                await ports.resume(dict(heir.ports), heir.at)
                await self.engine.add(member)
        except BaseException as exc:
            member.dismiss()
            with trio.move_on_after(limits.TERM_AFTER, shield=True):
                await self.lose(member)
            ports.close()
            if isinstance(exc, trio.TooSlowError):
                why = f"not up within {limits.MEMBER_ADD_AFTER:g} s"
                what = f"{self.engine.name} on {member.name}"
                raise EngineError(what, why=why) from None
            raise


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


def _wish(facts: Facts | None, assigned: wire.Assigned) -> Forward:
    """Return how a worker wants its ports reached; an older one knows one way."""
    if facts is None or not assigned.host:
        return Forward.NO
    return facts.forward
