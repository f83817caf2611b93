"""The courier keeps a link to one worker: dials, shakes hands, has it attended.

A worker that is out of reach is tried again, ever more slowly up to
`REDIAL_CAP_AFTER`; one that said good-bye, or refused us, when it is heard of again
or trust changed here.  Nothing that mDNS says touches a link that is up.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, UnreachableError, quoted
from aemesh.master.anteroom import Anteroom
from aemesh.master.callbacks import Callbacks
from aemesh.master.clones import CloneWatch
from aemesh.master.facts import take_facts_untrusted
from aemesh.master.history import History
from aemesh.master.imposters import Imposters, Lie, Seen
from aemesh.master.record import Order, WorkerRecord
from aemesh.master.remote import DialStream
from aemesh.model.address import Address
from aemesh.model.group import Haste, MemberState, Orphan
from aemesh.model.key import KeyId
from aemesh.model.names import group_name_untrusted
from aemesh.model.trust import Decision, Peer, Reason, Verdict
from aemesh.net.doorman import Desk, DeskDoorman, Doorman, StreamCaller
from aemesh.net.link import Closed, Ending, Link, open_link
from aemesh.net.links import Links
from aemesh.net.rotation import take
from aemesh.net.shake import Channel, Shaker
from aemesh.net.transport import Connection, Network
from aemesh.policy.clones import SecondLink
from aemesh.policy.membership import LINKED_STATES, Happening
from aemesh.policy.redial import pause_after
from aemesh.protocol import wire
from aemesh.protocol.hello import Purpose
from aemesh.protocol.keeperword import keeper_untrusted
from aemesh.tasks.nursery import open_crew
from aemesh.tasks.waiting import wait_any

_log = logging.getLogger(__name__)

# Serves a link until it ends; `aemesh.master.attend.Attendant.run`.
Attend = Callable[[WorkerRecord, Link, DialStream], Awaitable[Closed]]

# `Shaker.connect`, when TLS proved another key than the one that was meant.
_OTHER_KEY = re.compile(r"the key there is (SHA256:\S+), expected ")


@dataclass(slots=True, kw_only=True)
class Courier:
    """Keeps a link to the worker of one record."""

    record: WorkerRecord
    network: Network
    shaker: Callable[[Doorman], Shaker]
    desk: Desk
    attend: Attend
    history: History
    wall: Callable[[], float]
    dialling: trio.CapacityLimiter  # shared by the couriers to strangers
    anteroom: Anteroom  # and this
    imposters: Imposters  # and this
    clones: CloneWatch
    links: Links  # of all workers
    callbacks: Callbacks
    has_enough: Callable[[], bool] = lambda: False
    addresses: tuple[Address, ...] = ()
    heard_of: trio.Event = field(default_factory=trio.Event)
    _was_announced: bool = False  # else it dialled us, and nobody knows another way
    _announced: frozenset[Address] = frozenset()  # the latest only
    _run: str = ""  # of the process that was announced last
    _linked_run: str = ""  # of the one that was linked last
    _facts_came: trio.Event = field(default_factory=trio.Event)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def hear(self, addresses: tuple[Address, ...], *, run: str = "") -> None:
        """The worker was announced at these addresses; old ones are tried after them.

        Addresses that no announcement names any more are kept for one more change,
        because the newest may be the forged ones (threat 59).
        """
        self._was_announced = True
        self._run = run
        self._announced = frozenset(addresses)
        older = tuple(a for a in self.addresses if a not in addresses)
        self.addresses = (addresses + older)[: 2 * limits.ANNOUNCED_ADDRESSES]
        self.record.places = self.addresses
        self.try_now()

    def try_now(self) -> None:
        """Do not wait any longer for the next try."""
        self.heard_of.set()
        self.heard_of = trio.Event()

    def end(self) -> None:
        """Give the worker up: it is a stranger, and others were heard of since."""
        self._scope.cancel()

    async def run(self) -> None:
        """Keep the link until cancelled, or `end`."""
        with self._scope:
            await self._keep()

    async def _keep(self) -> None:
        failures = 0
        while True:
            news = self.heard_of
            began = trio.current_time()
            try:
                closed = await self._next_end()
            except RefusedError as exc:
                self._failed(exc)
                if not self.is_linked:
                    await news.wait()
            except AemeshError as exc:
                self._failed(exc)
                failures += 1
                await _wait_for(news, pause_after(failures))
            except Exception:  # noqa: BLE001 - what one worker meets ends no master
                _log.exception("the link to %s met a bug", self.record.name)
                failures += 1
                await _wait_for(news, pause_after(failures))
            else:
                # A link that breaks again and again at once is no better than none.
                lasted = trio.current_time() - began > limits.REDIAL_CAP_AFTER
                failures = 1 if lasted else failures + 1
                # Where a copy of its key still lives nobody said good-bye.
                left = closed.ending is Ending.BYE and not self._is_back
                if left and not self.clones.found:
                    await self.heard_of.wait()  # what was heard before is old news
                else:
                    await _wait_for(self.heard_of, pause_after(failures))

    @property
    def _is_back(self) -> bool:
        """Whether it was started anew, and announced, before its last link ended."""
        return self._run not in {"", self._linked_run}

    @property
    def is_linked(self) -> bool:
        """Whether a link to the worker is up, whoever dialled it."""
        return self.record.key_id in self.links

    async def _next_end(self) -> Closed:
        """Return when a link has ended: one that is up, or that we dial now."""
        await self._wait_use()
        link = self.links.get(self.record.key_id)
        if link is None:
            channel = await self._dial(_Caller(self), Purpose.CONTROL)
            return await self.serve(channel)
        while self.links.get(self.record.key_id) is link:
            await self.links.changed.wait()
        return link.closed or Closed(Ending.CLOSED)

    @property
    def _is_unwanted(self) -> bool:
        return self.has_enough() or not self._was_announced

    async def _wait_use(self) -> None:
        """Wait until there is a link, or a reason and a place to dial for one."""
        while not self.is_linked and self._is_unwanted:
            news, changed = self.heard_of, self.links.changed
            await wait_any(news.wait, changed.wait)

    async def serve(self, channel: Channel) -> Closed:
        """Have a channel attended as the link until it ends, if it is to count."""
        record = self.record
        async with open_link(channel, self._handle) as link, open_crew() as crew:
            place = await self.links.settle(link)
            if place is not SecondLink.TAKES:
                await self._turn_away(link, place)
                return link.closed or Closed(Ending.OURS)
            self._welcome(link)
            crew.start_soon(self.clones.run, link)
            try:
                with trio.move_on_after(limits.HELLO_AFTER):
                    await wait_any(self._facts_came.wait, link.wait_closed)
                dial = self._dial_stream
                if not link.dialled:
                    dial = partial(self.callbacks.call, link)
                return await self.attend(record, link, dial)
            finally:
                record.link = record.holder = None
                record.wanted, record.over, record.waits = {}, False, False
                record.clone = ""
                self.links.leave(link)
                crew.cancel_scope.cancel()

    def _welcome(self, link: Link) -> None:
        record, now = self.record, self.wall()
        record.waiting = None
        record.note = ""
        record.serial = 0
        record.orphan = None
        # While a handshake of ours is under way, it is linked already.
        if record.membership.state not in LINKED_STATES:
            record.membership.step(Happening.LINKED, now=now)
        record.membership.step(Happening.ACCEPTED, now=now)
        record.link = link
        self._linked_run = link.peer.run
        record.address = str(link.connection.remote)
        self._facts_came = trio.Event()

    async def _turn_away(self, link: Link, place: SecondLink | None) -> None:
        """End a link that does not count; a second process of one key is told."""
        older = self.links.get(self.record.key_id)
        if place is SecondLink.REFUSED and older is not None:
            await self.clones.refuse(older, link)
        link.close("another link of this pair is up")

    async def _dial(self, caller: Doorman, purpose: Purpose) -> Channel:
        """Return a channel to the worker; tries each address, keeps every reason."""
        reasons: dict[str, list[str]] = {}
        for address in self._places():
            try:
                connection = await self._connect(address)
                return await self._shake(connection, caller, purpose)
            except AemeshError as exc:
                other = _OTHER_KEY.match(exc.why or "")
                if other is not None:
                    self.tell_other_key(other[1], address)
                if isinstance(caller, _Caller) and caller.judged:
                    raise  # it was the worker itself; what it, or we, said is the news
                reasons.setdefault(exc.why or exc.what, []).append(str(address))
        tried = (f"{why} at {', '.join(where)}" for why, where in reasons.items())
        why = "; ".join(tried) or "it announced no address"
        msg = f"cannot reach {self.record.name}"
        raise UnreachableError(msg, why=why)

    def _places(self) -> tuple[Address, ...]:
        """Return where to dial: where the link goes to first, if there is one.

        What was announced last may be a second place of the same key.
        """
        link = self.record.link
        if link is None or not link.dialled:
            return self.addresses
        return tuple(dict.fromkeys((link.connection.remote, *self.addresses)))

    def tell_other_key(self, key: str, address: Address) -> None:
        """Somebody else answered: of note where the worker says that it is now."""
        if address not in self._announced:
            return  # it was there once; now another has that address
        record = self.record
        seen = Seen(
            subject=f"{record.key_id} at {address}",
            lie=Lie.OTHER_KEY,
            name=record.name,
            key=key,
            addresses=(str(address),),
            reason="another key answers at its address",
        )
        known = self.desk.knows(record.key_id)
        if self.imposters.see(seen, now=self.wall(), ours=known) == 1:
            text = f"another key answers at {record.name}'s address {address}: {key}"
            self.history.add_of_stranger("discovery.imposter", text)

    async def _shake(
        self, connection: Connection, caller: Doorman, purpose: Purpose
    ) -> Channel:
        """Shake hands; a stranger holds a place meanwhile, and may have to give it."""
        key_id = self.record.key_id
        shaker = self.shaker(caller)
        if self.desk.knows(key_id):
            return await shaker.connect(connection, expected=key_id, purpose=purpose)
        with trio.CancelScope() as scope, self.anteroom.place(scope):
            return await shaker.connect(connection, expected=key_id, purpose=purpose)
        msg = f"{self.record.name} gave its place to another that waits for trust"
        raise RefusedError(msg)

    async def _connect(self, address: Address) -> Connection:
        """Dial; strangers take turns, whom we know does not wait behind them."""
        if self.desk.knows(self.record.key_id):
            return await self.network.dial(address)
        async with self.dialling:
            return await self.network.dial(address)

    async def _dial_stream(self) -> Channel:
        return await self._dial(StreamCaller(self.desk, self._linked()), Purpose.STREAM)

    def _linked(self) -> Peer | None:
        link = self.record.link
        return None if link is None else link.peer

    async def _leave(self, body: wire.Leave) -> wire.Body:
        """The worker asks to go: let its work and data move first."""
        try:
            haste = Haste(body.haste)
        except ValueError:
            haste = Haste.SOON  # a word of a newer worker
        order = Order(
            why=quoted(body.reason),
            leave=True,
            by_after=body.by_after,
            haste=haste,
            follow=body.follow,
        )
        self.record.give(order)
        await order.done.wait()
        receipt = order.receipt
        if receipt is None and order.error is not None:
            raise order.error  # what became of its work is not known: it asks again
        if receipt is None:
            return wire.Left(moved=0, lost=0, stays=order.stays)
        return wire.Left(
            moved=receipt.moved,
            lost=receipt.lost,
            moved_bytes=receipt.moved_bytes,
            finished=receipt.finished,
            restarted=receipt.restarted,
            took_after=receipt.took_after,
            graceful=receipt.graceful,
            member=receipt.member,
            group=receipt.group,
        )

    def _note_orphan(self, body: wire.Orphaned) -> None:
        """The worker is held in a lease that we, or somebody we inherit from, had."""
        master, keeper = KeyId.parse_untrusted(body.master), None
        if body.keeper is not None:
            keeper = keeper_untrusted(body.keeper, master=master)
        self.record.orphan = Orphan(
            master, group_name_untrusted(body.group), body.generation, keeper
        )
        self.record.wake()

    def _note_clone(self, body: wire.Clone) -> None:
        """The worker has a link of our own key from another place, too."""
        here = Address.parse_untrusted(body.you)
        there = Address.parse_untrusted(body.address)
        text = (
            f"our own key is used in two places, as {self.record.name} sees it: "
            f"{here.host} (this one) and {there.host}: a copied state directory?  "
            f"Remove `master/` from one of them; it makes its own key"
        )
        note = f"it has a link of our own key from {there.host}"
        if self.record.clone != note:
            self.record.clone = note
            # Bounded: a worker may say so as often as it likes.
            self.history.add_of_stranger("master.clone", text, worker=self.record.name)

    def _failed(self, error: AemeshError) -> None:
        """Note why there is no link; each reason is told once."""
        record = self.record
        if self.is_linked:
            return  # the worker dialled us
        if record.membership.state is MemberState.LINKED:
            record.membership.step(Happening.BROKEN, now=self.wall())
        if record.note != str(error):
            record.note = str(error)
            known = self.desk.knows(record.key_id)
            add = self.history.add if known else self.history.add_of_stranger
            add("worker.unlinked", str(error), worker=record.name)

    async def _handle(self, link: Link, body: wire.Body) -> wire.Body | None:  # noqa: PLR0911 - one for each message
        while self.links.get(link.peer.key_id) is not link:
            await self.links.changed.wait()  # to its place; or it ends, and we with it
        match body:
            case wire.WorkerFacts():
                take_facts_untrusted(self.record, body, now=self.wall())
                self._facts_came.set()
                return None
            case wire.Orphaned():
                self._note_orphan(body)
                return None
            case wire.Rotate():
                return take(link, body, self.desk)
            case wire.Leave():
                return await self._leave(body)
            case wire.Stay():
                self.record.recall()
                return wire.Done()
            case wire.Clone():
                self._note_clone(body)
                return None
        return wire.Unsupported(what=wire.NAMES[type(body)])


class _Caller(DeskDoorman):
    """The doorman of a link's handshake: tells the record how far it came."""

    def __init__(self, courier: Courier) -> None:
        super().__init__(courier.desk)
        self._courier = courier
        self.judged = False
        self.agreed = False

    def judge(
        self,
        peer: Peer,
        *,
        purpose: Purpose,  # noqa: ARG002 - the protocol's
        skew: float,
        expected: KeyId | None,
    ) -> Verdict:
        """Return the desk's verdict, and show what it waits for."""
        courier = self._courier
        record = courier.record
        verdict = courier.desk.judge(peer, expected=expected)
        if verdict.reason is Reason.EXPECTED_OTHER:
            courier.tell_other_key(
                str(peer.key_id), Address.parse_untrusted(peer.address)
            )
            return verdict  # it was not the worker
        if courier.is_linked and not self.agreed:
            # Who said ok already goes on: of two links one is then settled upon, where
            # two sides that both give up would have none.
            msg = f"{peer.name} has dialled us meanwhile"
            raise RefusedError(msg)
        if not self.judged:
            self.judged = True
            # A known key has the name under which it was accepted, whatever it says.
            record.name = courier.desk.name_of(peer.key_id) or peer.name
            if record.membership.state not in LINKED_STATES:
                record.membership.step(Happening.LINKED, now=courier.wall())
        if verdict.decision is not Decision.OK and record.waiting is not verdict.reason:
            record.waiting = verdict.reason
            tell_request(courier.history, peer, verdict)
        elif verdict.decision is Decision.OK:
            record.waiting = None
            self.agreed = True
        if abs(skew) > limits.CLOCK_SKEW_AFTER:
            record.note = f"its clock is off by {skew:.0f} s"
        return verdict

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """The worker's own verdict."""
        super().heard(peer, verdict)
        if verdict.decision is Decision.PENDING and verdict.reason is Reason.UNKNOWN:
            record = self._courier.record
            note = f"{peer.name} asks its owner whether to trust us"
            if record.note != note:
                record.note = note
                self._courier.history.add_of_stranger(
                    "trust.waits", note, worker=record.name
                )


def tell_request(history: History, peer: Peer, verdict: Verdict) -> None:
    """Tell that a worker waits for trust, or was refused."""
    text = f"{peer.name} wants to join: {peer.key_id} {peer.key_id.words}"
    if peer.code:
        text += f'; both sides show "{peer.code}"'
    if verdict.decision is Decision.NO:
        text = f"{peer.name} is refused: {verdict.detail}"
    history.add_of_stranger("trust.request", text, worker=peer.name)


async def _wait_for(event: trio.Event, seconds: float) -> None:
    with trio.move_on_after(seconds):
        await event.wait()
