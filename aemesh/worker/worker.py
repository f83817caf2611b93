"""The worker: it lets masters in, obeys the one that holds it, and leaves politely.

`Worker.run` does not return until the worker is told to leave or cancelled.  What it
needs of the world comes in as `Parts`, so that a test hands in a network in memory.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError, UnreachableError
from aemesh.model.address import Address, Seed
from aemesh.model.group import Haste, Receipt
from aemesh.model.key import KeyId
from aemesh.model.machine import Facts
from aemesh.model.names import GroupName, group_name_untrusted, job_id_untrusted
from aemesh.model.trust import Decision
from aemesh.net.doorman import Desk, Doorman, StreamCaller
from aemesh.net.entrance import Door
from aemesh.net.firstword import hear_first
from aemesh.net.link import Closed, Ending, Link, open_link
from aemesh.net.links import Links
from aemesh.net.listener import Listener
from aemesh.net.rotation import FindNext, keep_offering, take
from aemesh.net.shake import Channel, Shaker
from aemesh.net.transport import Network
from aemesh.policy.clones import SecondLink
from aemesh.policy.lease import Tenancy
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.hello import Purpose
from aemesh.tasks.nursery import open_crew
from aemesh.worker.held import Held
from aemesh.worker.leasedjobs import Jobs
from aemesh.worker.notebook import Notebook
from aemesh.worker.outreach import Finder, Nobody, Outreach
from aemesh.worker.parting import Parting
from aemesh.worker.patience import give_up
from aemesh.worker.portway import PortWay
from aemesh.worker.tidings import Tidings
from aemesh.worker.warmth import Cold, Warm, Warmth
from aemesh.worker.wishes import Wishes

if TYPE_CHECKING:
    from aemesh.model.trust import Peer

_log = logging.getLogger(__name__)


class Announcer(Protocol):
    """Makes the worker known; `aemesh.net.discovery` or nothing at all."""

    async def announce(self, facts: Facts, *, port: int) -> None:
        """Announce until cancelled."""

    def announce_again(self) -> None:
        """Announce anew now: something changed that masters should try again for."""


class Silence:
    """Announces nothing: whoever is to come knows where."""

    async def announce(self, facts: Facts, *, port: int) -> None:
        """Return when cancelled."""
        del facts, port
        await trio.sleep_forever()

    def announce_again(self) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a worker is made of."""

    shaker: Callable[[Doorman], Shaker]
    desk: Desk
    network: Network
    announcer: Announcer
    jobs: Jobs
    warm: Warm = field(default_factory=Cold)
    facts: Facts
    chance: Callable[[], float]  # uniform in [0, 1), for the early drop
    generation: int
    remember_generation: Callable[[int], None]
    groups: frozenset[GroupName] = frozenset()  # that may be served; empty: any
    next_key: FindNext = lambda: None  # that we offer to masters
    notebook: Notebook | None = None  # of a keeper
    port: int = 0
    hosts: tuple[str, ...] = ()
    finder: Finder = field(default_factory=Nobody)  # of masters
    seeks: Callable[[KeyId], bool] = lambda _: False  # of those that were found
    seeds: tuple[Seed, ...] = ()  # if any: only these are dialled, and nobody listens
    give_up_after: float | None = None  # without any link
    lease_after: float | None = None  # then others have their turn; None: no end
    wall: Callable[[], float] = time.time


class Worker:
    """One worker; `run` it once."""

    def __init__(self, parts: Parts, *, key_id: KeyId) -> None:
        self._parts = parts
        self.links = Links(key_id)
        self.port = 0
        self.held = Held(
            Tenancy(key_id, generation=parts.generation, groups=parts.groups),
            parts.jobs,
            parts.remember_generation,
            wall=parts.wall,
            is_linked=lambda master: master in self.links,
            notebook=parts.notebook,
        )
        self.portway = PortWay(parts.network, self.held)
        self.parting = Parting(self.held, self.links, parts.wall)
        self.held.leaves_after = self.parting.until_after
        self.wishes = Wishes(self.held, self.links, parts.lease_after)
        self._tidings = Tidings(
            parts.facts,
            self.held,
            parts.desk,
            until_after=self.parting.until_after,
            wishes=self.wishes,
            spares=parts.warm.told,
        )
        self._warmth = Warmth(self.held, self.links, parts.warm)
        self._door = Door(parts.desk, chance=parts.chance, linked=self._linked)
        self._listener = Listener(self._door, parts.shaker, self._serve_channel)
        self._outreach = Outreach(
            network=parts.network,
            shaker=parts.shaker,
            desk=parts.desk,
            links=self.links,
            serve=self._serve_dialled,
            finder=parts.finder,
            seeks=parts.seeks,
            meets=lambda master: self._door.met[master] > 0,
            seeds=parts.seeds,
        )
        # Of the master that holds us, for the last time.
        self._lost_sight: object = None

    def __repr__(self) -> str:
        return f"<Worker on port {self.port}, {len(self.links)} links, {self.held!r}>"

    async def run(
        self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> Receipt:
        """Work until told to leave; then leave, and return how that went.

        Reports the port when masters can come in.
        """
        try:
            async with open_crew() as crew:
                self.held.crew = crew
                if not self._parts.seeds:
                    self.port = await crew.start(self._serve)
                    crew.start_soon(self._announce)
                if self._parts.notebook is not None:
                    self.held.port = self.port
                crew.start_soon(self._outreach.run)
                crew.start_soon(self.wishes.run)
                crew.start_soon(self._warmth.run)
                crew.start_soon(self.portway.run)
                crew.start_soon(self._watch_trust)
                if self._parts.give_up_after is not None:
                    crew.start_soon(give_up, self, self._parts.give_up_after)
                task_status.started(self.port)
                await self.parting.run()
                await self.parting.end_jobs()
                self._say_good_bye()
                crew.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):  # bounded: SIGKILL follows
                await self.held.let_go(0.0)
        return self.parting.receipt

    async def wait_idle(self, exit_after: float) -> None:
        """Return once no master has held us for so many seconds."""
        tenancy, free_at = self.held.tenancy, trio.current_time()
        generation = tenancy.generation
        while True:
            changed = self.held.changed
            if tenancy.lease is not None:
                free_at = math.inf
            elif free_at == math.inf or tenancy.generation != generation:
                free_at = trio.current_time()  # else it was other news of us
            generation = tenancy.generation
            with trio.move_on_at(free_at + exit_after) as waiting:
                await changed.wait()
            if waiting.cancelled_caught:
                return

    def leave(self, reason: str) -> None:
        """Leave gracefully: work and data move to others first."""
        with suppress(RefusedError):  # it is on its way out
            self.parting.agree(None, Haste.SOON, reason)

    def _linked(self, master: KeyId) -> Peer | None:
        link = self.links.get(master)
        return None if link is None else link.peer

    async def _serve(self, *, task_status: trio.TaskStatus[int]) -> None:
        await self._parts.network.serve(
            self._listener.admit,
            port=self._parts.port,
            hosts=self._parts.hosts,
            task_status=task_status,
        )

    async def _announce(self) -> None:
        await self._parts.announcer.announce(self._parts.facts, port=self.port)

    async def _watch_trust(self) -> None:
        """When trust changed, let go whom it no longer covers, and call the others."""
        while True:
            await self._parts.desk.wait_change()
            for link in list(self.links.values()):
                self._judge_again(link)
            self._parts.announcer.announce_again()

    def _judge_again(self, link: Link) -> None:
        """Close a link that trust no longer covers, or not for the group it serves."""
        desk, lease = self._parts.desk, self.held.tenancy.lease
        verdict = desk.judge(link.peer)
        if verdict.decision is not Decision.OK:
            link.close(f"trust was withdrawn: {verdict.reason.value}")
        elif lease is None or lease.master != link.peer.key_id:
            return
        elif not desk.allows_group(link.peer, lease.group):
            link.close(f"its line of trust has other groups than {lease.group}")

    async def _serve_channel(self, channel: Channel) -> None:
        if channel.purpose is Purpose.STREAM:
            await self._serve_stream(channel)
        else:
            await self._serve_link(channel)

    async def _serve_dialled(self, channel: Channel) -> Closed | None:
        """Serve a link that we dialled, as one that came in."""
        with self._listener.trusting(channel.connection):
            closed = await self._keep_link(channel)
        if closed is not None:
            assert self.held.crew is not None, "links come while the worker runs"
            # Not here: it takes as long as a lease outlives its link.
            self.held.crew.start_soon(self._after, channel.peer.key_id, closed)
        return closed

    async def _serve_link(self, channel: Channel) -> None:
        closed = await self._keep_link(channel)
        if closed is not None:
            await self._after(channel.peer.key_id, closed)

    async def _keep_link(self, channel: Channel) -> Closed | None:
        """Serve a link until it ends; return how, or None if another one counts."""
        async with open_link(channel, self._handle) as link, open_crew() as crew:
            if not await self._takes_place(link):
                return None
            self._judge_again(link)  # trust may have changed while it waited
            crew.start_soon(self._offer_key, link)
            try:
                await self._tell_orphaned(link)
                crew.start_soon(self._tidings.keep_telling, link)
                _log.info("linked to master %s", link.peer.name)
                closed = await link.wait_closed()
            except UnreachableError:
                closed = link.closed or Closed(Ending.CLOSED)
            finally:
                self.links.leave(link)
                crew.cancel_scope.cancel()
        ending = closed.ending.value
        _log.info("the link to master %s ended: %s", link.peer.name, ending)
        return closed

    async def _offer_key(self, link: Link) -> None:
        present = self.held.tenancy.worker
        changed = self._parts.desk.wait_change
        await keep_offering(link, present, self._parts.next_key, changed)

    async def _after(self, master: KeyId, closed: Closed) -> None:
        """End what ran for a master that is gone, at once or after a grace time."""
        lease = self.held.tenancy.lease
        if lease is None or lease.master != master or master in self.links:
            return
        if closed.ending is not Ending.BYE:
            self._lost_sight = lost_sight = object()
            self.held.leased.hang_up()
            for link in list(self.links.values()):
                with suppress(UnreachableError):
                    await self._tell_orphaned(link)
            since = trio.current_time()
            while (left := since + self.held.outlives - trio.current_time()) > 0.0:
                # Looked at again: a lease under which nothing runs any more is over.
                await trio.sleep(min(left, limits.ORPHANED_JOB_AFTER))
                if self._lost_sight is not lost_sight or master in self.links:
                    return  # it is there, or was: then the time began anew
                if self.held.tenancy.lease != lease:
                    return  # an heir has it
                await self.held.leased.end_fleeting(limits.TERM_AFTER)
        if self.held.tenancy.lease == lease and master not in self.links:
            await self.held.let_go(limits.TERM_AFTER)

    async def _tell_orphaned(self, link: Link) -> None:
        """Tell a master of the lease that it may adopt, if there is one."""
        orphaned = self.held.orphaned(link.peer.key_id)
        if orphaned is not None:
            await link.tell(orphaned)

    async def _takes_place(self, link: Link) -> bool:
        """Settle a new link with an older one of the same key, if there is one."""
        place = await self.links.settle(link)
        if place is SecondLink.REFUSED:
            await self._refuse_clone(self.links[link.peer.key_id], link)
        elif place is SecondLink.SURPLUS:
            link.close("another link of this pair is up")
        return place is SecondLink.TAKES

    async def _refuse_clone(self, older: Link, link: Link) -> None:
        """One master's key in two places: the link that is up stays; tell both."""
        first, second = older.connection.remote, link.connection.remote
        self._door.log(
            "master %s's key is used in two places: %s (linked) and %s (refused): "
            "a copied state directory?  Remove `master/` from one of them; it makes "
            "its own key",
            older.peer.name,
            first,
            second,
            level=logging.WARNING,
        )
        with suppress(UnreachableError):
            await link.tell(wire.Clone(address=str(first), you=str(second)))
        link.close("another process of your key holds this worker")
        with suppress(UnreachableError):
            await older.tell(wire.Clone(address=str(second), you=str(first)))

    async def _handle(self, link: Link, body: wire.Body) -> wire.Body | None:  # noqa: PLR0911 - one for each message
        if self.links.get(link.peer.key_id) is not link:
            what = "this link is not the one that counts"
            raise RefusedError(what, why="another of the same key is up")
        if isinstance(body, wire.Clone):
            self._warn_of_clone(link, body)
            return None
        if isinstance(body, wire.Leaving):
            self.parting.take(link, body)
            return None
        if isinstance(body, wire.Rotate):
            return take(link, body, self._parts.desk)
        if isinstance(body, wire.Want):
            return self.wishes.take(link.peer.key_id, body)
        if isinstance(body, wire.Warm):
            return self._warmth.take(link.peer.key_id, body)
        if isinstance(body, wire.Dial):
            return await self._dial_stream(link, body)
        if isinstance(body, wire.Probe):
            return await self.portway.probe(link, body)
        if isinstance(body, wire.Assign | wire.Adopt):
            return await self._assign(link, body)
        return await self.held.handle(link.peer.key_id, body)

    async def _assign(
        self, link: Link, body: wire.Assign | wire.Adopt
    ) -> wire.Body | None:
        self._check_group(link.peer, group_name_untrusted(body.group))
        try:
            if isinstance(body, wire.Assign):
                self.parting.check_takes()
                self.wishes.check_turn(link.peer.key_id)
            answer = await self.held.handle(link.peer.key_id, body)
        except RefusedError:
            # The news that it waits for comes before the no, so that it need not ask
            # again in vain.
            await self._tidings.tell(link)
            raise
        if isinstance(answer, wire.Assigned):
            answer = msgspec.structs.replace(answer, host=link.connection.local.host)
        return answer

    async def _dial_stream(self, link: Link, body: wire.Dial) -> wire.Body:
        """Dial a stream to a master whose link we dialled, at the same address."""
        if not link.dialled:
            what = "the stream is for the master to dial"
            raise RefusedError(what, why="it dialled the link")
        connection = await self._parts.network.dial(link.connection.remote)
        shaker = self._parts.shaker(StreamCaller(self._parts.desk, link.peer))
        channel = await shaker.connect(
            connection, expected=link.peer.key_id, purpose=Purpose.STREAM
        )
        said = wire.encode(wire.Dialled(id=body.id))
        try:
            await channel.stream.send_all(encode_frame(said, limit=limits.HELLO_BYTES))
        except trio.BrokenResourceError as exc:
            await trio.aclose_forcefully(channel.connection.stream)
            what = "the stream broke"
            raise UnreachableError(what) from exc
        assert self.held.crew is not None, "commands come while the worker runs"
        self.held.crew.start_soon(self._serve_stream, channel)
        return wire.Done()

    def _check_group(self, master: Peer, group: GroupName) -> None:
        """Raise `RefusedError` if the master's line of trust forbids this group."""
        if not self._parts.desk.allows_group(master, group):
            what = f"master {master.name} may not use this worker for {group}"
            raise RefusedError(what, why="its line of trust has other groups")

    def _warn_of_clone(self, link: Link, body: wire.Clone) -> None:
        here = Address.parse_untrusted(body.you)
        there = Address.parse_untrusted(body.address)
        self._door.log(
            "this worker's key is used in two places, says master %s: %s (this one) "
            "and %s: a copied state directory?  Remove `worker/` from one of them; it "
            "makes its own key",
            link.peer.name,
            here,
            there,
            level=logging.WARNING,
        )

    async def _serve_stream(self, channel: Channel) -> None:
        """Find the job or the port that a stream is for, and carry it."""
        stream = channel.stream
        try:
            with trio.fail_after(limits.HELLO_AFTER):
                number, body, early = await hear_first(
                    channel, wire.Attach, wire.Forward
                )
            if isinstance(body, wire.Forward):
                await self.portway.serve(channel, number, body, early=early)
                return
            assert isinstance(body, wire.Attach)
            try:
                job_id = job_id_untrusted(body.job)
                job = self.held.leased.attach(channel.peer.key_id, job_id)
            except RefusedError as exc:
                failed = wire.Failed(error=exc.name, what=str(exc))
                await stream.send_all(_framed(failed, number))
                return
            await stream.send_all(_framed(wire.Done(), number))
            assert self.held.crew is not None, "streams come while the worker runs"
            await job.attach(stream, self.held.crew)
            await job.carry(stream, early)
        except (BadMessage, trio.TooSlowError, trio.BrokenResourceError) as exc:
            _log.info("a stream of %s ended: %s", channel.peer.name, exc)
        finally:
            with trio.move_on_after(limits.TERM_AFTER):
                await stream.aclose()
            await trio.aclose_forcefully(channel.connection.stream)

    def _say_good_bye(self) -> None:
        plan = self.parting.plan
        for link in list(self.links.values()):
            link.close(plan.why if plan else "")


def _framed(body: wire.Body, re: int) -> bytes:
    return encode_frame(wire.encode(body, re=re), limit=limits.HELLO_BYTES)
