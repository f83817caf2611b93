"""A linked worker's life in the master: placed, serving, moved, let go, lost.

One task serves one link from the verdicts to the good-bye, so whatever concerns this
worker happens in one order.  Each round looks where the worker should be, brings it
there, and waits until something changes: an order, the engine, the groups.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TypeGuard

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.host.store import Store
from aemesh.master.group import Group
from aemesh.master.history import History
from aemesh.master.record import DRAINED, Order, WorkerRecord
from aemesh.master.remote import DialStream, RemoteMember, ask
from aemesh.master.sharing import Sharing
from aemesh.master.takeover import Takeover
from aemesh.master.warming import keep_warm
from aemesh.model.counted import counted
from aemesh.model.group import Haste, MemberState, Orphan, Receipt
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.net.doorman import Desk
from aemesh.net.link import Closed, Ending, Link
from aemesh.net.rotation import FindNext, keep_offering
from aemesh.policy.comeback import Comeback
from aemesh.policy.membership import Happening
from aemesh.protocol import wire
from aemesh.protocol.session import Pulse
from aemesh.tasks.nursery import open_crew
from aemesh.tasks.waiting import wait_any

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Attendant:
    """Serves one worker over one link."""

    record: WorkerRecord
    link: Link
    dial_stream: DialStream
    groups: Mapping[GroupName, Group]
    sharing: Sharing
    desk: Desk
    key_id: KeyId  # ours
    next_key: FindNext
    store: Store
    history: History
    wall: Callable[[], float]
    takeover: Takeover | None = None
    member: RemoteMember | None = None
    joined_at: float = 0.0
    comeback: Comeback = field(default_factory=Comeback)
    expected: float = 0.0  # the end that the engine knows of
    # The worker is between two groups of ours, and kept for the next one until then.
    vacant_until: float = math.inf

    async def run(self) -> Closed:
        """Serve until the link ends; return how it did."""
        record = self.record
        record.aside = record.aside if record.aside == DRAINED else ""
        if self.link.closed is None:  # a newer one that waits may adopt what it has
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_pulse)
                nursery.start_soon(self._rounds)
                nursery.start_soon(
                    keep_warm, record, self.link, self.groups, self.sharing
                )
                nursery.start_soon(
                    keep_offering,
                    self.link,
                    self.key_id,
                    self.next_key,
                    self.desk.wait_change,
                )
                await self.link.wait_closed()
                nursery.cancel_scope.cancel()
        closed = await self.link.wait_closed()
        # Its home may be where it was on its way to.
        group = self.groups.get(record.membership.group or GroupName(""))
        # The owner is told first: an engine may take its time over a loss.
        self._tell_end(closed)
        try:
            with trio.CancelScope(shield=True):
                if self.member is not None:
                    await self.member.hang_up(f"{record.name} {closed}")
                if group is not None:
                    with trio.move_on_after(limits.TERM_AFTER):
                        await group.lose(record, self.member)
        finally:  # whatever a loss met, nobody waits for one that is gone
            if record.order is not None:
                self._finish(record.order, UnreachableError(f"{record.name} is gone"))
        return closed

    async def _rounds(self) -> None:
        """Do what is due, again and again; part with a worker that does not do it."""
        try:
            while True:
                await self._round()
        except AemeshError as exc:
            self.link.close(str(exc))
        except Exception:  # noqa: BLE001 - what one worker meets ends no master
            _log.exception("attending %s met a bug", self.record.name)
            self.link.close("a bug of this master; see its log")

    async def _round(self) -> None:
        """Do the one thing that is due, or wait until there may be one."""
        record = self.record
        woken = record.ordered
        if self.member is None and self._is_left_to_us(record.orphan):
            # Before any order: what it has is not lost because it leaves just now.
            await self._take_up(record.orphan, woken)
        elif record.order is not None:
            await self._obey(record.order)
        elif record.aside:
            if record.membership.state is MemberState.TRUSTED:
                record.membership.step(Happening.LEAVING, now=self.wall())
            await self._wait(woken.wait)
        elif self.member is None:
            if record.membership.state is MemberState.DRAINING:  # it serves again
                record.membership.step(Happening.RETIRED, now=self.wall())
            group = self._place()
            if group is None:
                await self._wait(woken.wait, within=limits.UNPLACED_AFTER)
            elif group.state == "ready" and self.sharing.has_room(group):
                await self._join(group)
            else:
                await self._wait(woken.wait, group.changed.wait)
        else:
            await self._serve(woken)

    async def _serve(self, woken: trio.Event) -> None:
        """Stay in the group until something changes there."""
        record = self.record
        group = self.groups.get(GroupName(record.membership.group or ""))
        if group is not None and group.suspended:
            self._hand_back(group)
        elif group is None or group.state != "ready":
            await self._let_go(f"group {record.membership.group} ends")
        elif group.is_broken(record):
            member, self.member = self.member, None
            await group.lose(record, member)
            await self._let_go("its engine broke", again=True)
            pause = self.comeback.broke(group.name, lasted=self._lasted())
            self._bar(group.name, pause)
            self._count_failure(group, "its engine broke", since=self.joined_at)
        elif group.is_stale(record) and not self.sharing.holders(group.name):
            why = "its jobs act as somebody else from now on"
            await self._let_go(why, again=True)
        elif not self.desk.allows_group(self.link.peer, group.name):
            await self._let_go("its line of trust has other groups")
        elif self._goes_elsewhere(group):
            placement = record.placement
            assert placement is not None
            record.home = placement.group or record.home
            again = placement.group is not None
            await self._let_go(placement.why, again=again)
        else:
            due = group.due
            await self._expect(group)
            await self._wait(woken.wait, due.wait)

    async def _expect(self, group: Group) -> None:
        """Tell the engine of an end that was agreed, or that there is none any more."""
        until = self.record.until
        if until == self.expected:
            return
        self.expected = until
        left = until - self.wall() - limits.DEPARTURE_MOVED_BEFORE
        await group.expect(self.record, by_after=max(left, 0.0) if until else None)

    def _hand_back(self, group: Group) -> None:
        """Leave the worker as it is until its group goes on, or is given up."""
        record, self.member = self.record, None
        group.hand_back(record)
        generation = record.membership.generation
        record.orphan = Orphan(self.key_id, group.name, generation)
        for happening in (Happening.LEAVING, Happening.RETIRED):
            record.membership.step(happening, now=self.wall())

    def _goes_elsewhere(self, group: Group) -> bool:
        """Whether the plan has another place for the worker, and that is open."""
        placement = self.record.placement
        if placement is None or placement.group == group.name:
            return False
        if placement.group is None:
            return True
        target = self.groups.get(placement.group)
        return target is not None and target.state == "ready"

    def _place(self) -> Group | None:
        record = self.record
        if record.membership.state is not MemberState.TRUSTED:
            return None
        if record.is_held_by_other(self.key_id):
            return None  # it says so itself, and will say when it is free
        placement = record.placement
        name = None if placement is None else placement.group
        if 0.0 < record.until < self.wall() + limits.DEPARTURE_MOVED_BEFORE:
            return None  # not worth coming any more
        # What has just failed is not in the plan yet.
        if name is None or self.sharing.refusal(record, name):
            return None
        return self.groups.get(name)

    def _is_left_to_us(self, orphan: Orphan | None) -> TypeGuard[Orphan]:
        """Whether the worker is held in a lease that is for us to adopt, or to end."""
        if orphan is None:
            return False
        if self.takeover is not None:
            self.takeover.hear(orphan)
        group = self.groups.get(orphan.group)
        expected = group is not None and group.expects(
            self.record.key_id, orphan.generation
        )
        return expected or orphan.master == self.key_id

    def _is_awaited(self, name: GroupName) -> bool:
        """Whether the head of a group may still be found to go on."""
        group = self.groups.get(name)
        if group is not None:
            return group.suspended
        return self.takeover is not None and self.takeover.awaits(name)

    async def _take_up(self, orphan: Orphan, woken: trio.Event) -> None:
        """Go on with a lease of a master that was gone, or give it back."""
        record = self.record
        group = self.groups.get(orphan.group)
        if self._is_awaited(orphan.group):
            changes = [] if group is None else [group.changed.wait]
            await self._wait(woken.wait, *changes)
        elif group is None or not group.expects(record.key_id, orphan.generation):
            record.orphan = None
            body = wire.Release(
                generation=orphan.generation, term_after=limits.TERM_AFTER
            )
            await ask(self.link, body, wire.Done, within=limits.ANSWER_AFTER)
            self.sharing.changed()
        elif group.state != "ready":
            await self._wait(woken.wait, group.changed.wait)
        else:
            record.orphan = None
            await self._join(group, adopted=orphan.generation)
            drained = record.aside and record.order is None
            if drained and self.member is not None:  # the drain goes on
                record.give(
                    Order(why=record.aside, drain=True, by_after=limits.RETIRE_AFTER)
                )

    async def _join(
        self, group: Group, *, adopted: int | None = None
    ) -> AemeshError | None:
        """Bring the worker into a group; what fails is told, and not tried at once.

        With `adopted` it is there already, in this generation.
        """
        record = self.record
        if adopted is None:
            record.membership.assign(group.name, now=self.wall())
        else:
            record.membership.adopt(group.name, adopted, now=self.wall())
        generation = record.membership.generation
        record.home = group.name
        self.store.put_worker(record.key_id, generation, group.name)
        began, was_ours = trio.current_time(), self.vacant_until < math.inf
        try:
            self.expected = 0.0
            self.member = await group.admit(record, self.link, self.dial_stream)
        except AemeshError as exc:
            if record.is_held_by_other(self.key_id):
                self._stand_back()
                return exc
            if group.suspended:
                self._hand_back(group)
                return exc
            if group.state != "ready":  # it ended meanwhile, which is not its fault
                await self._let_go(f"group {group.name} ends", again=was_ours)
                return exc
            record.note = str(exc)
            self._say("worker.failed", f"{record.name} is not in {group.name}: {exc}")
            # Who served another group of ours is brought back, if that one has a place.
            await self._let_go("it did not come up", again=was_ours)
            self._bar(group.name, self.comeback.failed(group.name))
            self._count_failure(group, str(exc), since=began)
            return exc
        self.vacant_until = math.inf
        self.joined_at = trio.current_time()
        record.note = ""
        cores = counted(self.member.cores, "core")
        text = f"{record.name} serves {group.name}: {cores}"
        self._say("worker.joined", text)
        return None

    def _lasted(self) -> float:
        return trio.current_time() - self.joined_at

    def _bar(self, name: GroupName, pause: float) -> None:
        """Let the worker be shared without this group for a while."""
        if pause:
            self.record.barred[name] = trio.current_time() + pause
            self.sharing.changed()

    def _count_failure(self, group: Group, what: str, *, since: float) -> None:
        """Set the worker aside if it fails at once, again and again, and others not."""
        record, now = self.record, trio.current_time()
        others_well = any(key != record.key_id for key in group.members)
        if record.standing.failed(
            what, now=now, took=now - since, others_well=others_well
        ):
            self._tell_aside()

    def _tell_aside(self) -> None:
        span, why = self.sharing.set_aside(self.record), self.record.standing.why
        text = f"{self.record.name} is set aside for {span:.0f} s: {why}"
        self._say("worker.aside", text)

    def _stand_back(self) -> None:
        """Another master was quicker; the worker's own news says when to ask again."""
        record, self.vacant_until = self.record, math.inf
        for happening in (Happening.LEAVING, Happening.RETIRED):
            record.membership.step(happening, now=self.wall())
        self._say("worker.held", f"{record.name} is {_whose(record)}")

    async def _obey(self, order: Order) -> None:
        """Carry out a move or a leave; the worker's answer to it is the receipt."""
        record = self.record
        try:
            again = order.move_to is not None
            order.receipt = await self._let_go(order.why, order=order, again=again)
            if order.move_to and order.receipt is not None and record.order is order:
                await self._join_moved(order, order.receipt.group)
        except AemeshError as exc:
            self._finish(order, exc)
            return
        if record.order is order and order.receipt is not None:
            if order.drain:
                record.aside = DRAINED
            elif order.leave:
                record.aside = "it leaves"  # until it says good-bye
        self._finish(order, order.error)

    async def _join_moved(self, order: Order, old: GroupName) -> None:
        """Bring a moved worker into its new group, or back to where it was.

        Raises what the join met; the worker is then shared as before the move.
        """
        record = self.record
        error = await self._join_there(order)
        if error is None:
            return
        if record.pinned == order.move_to:  # else another move has pinned it anew
            self.sharing.pin(record, None)
        record.home = old if old in self.groups else None
        generation = record.membership.generation
        self.store.put_worker(record.key_id, generation, record.home)
        raise error

    async def _join_there(self, order: Order) -> AemeshError | None:
        """Join where a move goes to once there is room, while it is to go there.

        Who makes room is on its way out; but the room may be given to somebody else
        when what is wanted changes, and the worker may get another order.
        """
        record, name = self.record, GroupName(order.move_to or "")
        while record.order is order and record.pinned == name:
            woken, group = record.ordered, self.groups.get(name)
            is_up = group is not None and group.state in {"opening", "ready"}
            if group is None or group.suspended or not is_up:
                return UnreachableError(f"{name} is not open")
            if group.state == "ready" and self.sharing.has_room(group):
                return await self._join(group)
            await self._wait(woken.wait, group.changed.wait)
        what = f"{record.name} does not go to {name} any more"
        return RefusedError(what, why="what is wanted of it, or there, has changed")

    async def _let_go(
        self,
        why: str,
        *,
        order: Order | None = None,
        again: bool = False,
    ) -> Receipt | None:
        """Retire the worker from its group and release it.

        With `again` it stays ours, for a while, to be assigned anew.
        Returns None if the order was called off meanwhile, or another took its place.
        """
        record = self.record
        name = record.membership.group
        group = self.groups.get(name) if name else None
        receipt = Receipt(record.name, name or GroupName("none"), graceful=True)
        if name is None:
            if not again:
                await self._give_back()
            return receipt
        record.membership.step(Happening.LEAVING, now=self.wall())
        when = ""
        if order is not None and order.haste is Haste.LATE:  # it works until then
            when = f" in {order.by_after:.0f} s"
        self._say("worker.draining", f"{record.name} leaves {name}{when}: {why}")
        if group is not None and self.member is not None:
            if order is None:
                receipt = await group.retire(record, by_after=limits.RETIRE_AFTER)
            elif (left := await self._retire(group, order)) is not None:
                receipt = left
            elif record.order is not order or await self._keep(group):
                return None
            self.comeback.parted(group.name, lasted=self._lasted())
            if self._lasted() > limits.FAILS_QUICKLY_AFTER:
                record.standing.did_well()
        self.member = None
        await self._release(again=again)
        record.membership.step(Happening.RETIRED, now=self.wall())
        text = f"{record.name} left {name}: {summed_up(receipt)}"
        self.history.add("worker.retired", text, worker=record.name, group=name)
        return None if order is not None and order.stays else receipt

    async def _release(self, *, again: bool = False) -> None:
        """Have the worker end what runs, and be free, or ours until the next group."""
        body = wire.Release(
            generation=self.record.membership.generation,
            term_after=limits.TERM_AFTER,
            again=again,
        )
        await ask(self.link, body, wire.Done, within=limits.ANSWER_AFTER)
        now = trio.current_time()
        self.vacant_until = now + limits.VACANT_AFTER if again else math.inf

    async def _give_back(self) -> None:
        """Free a worker that was kept for another group of ours, and got into none."""
        if self.vacant_until < math.inf:
            await self._release()

    async def _retire(self, group: Group, order: Order) -> Receipt | None:
        """Have the engine let go; None if the order is no more before that is done."""
        receipt = None
        async with open_crew() as crew:
            crew.start_soon(self._watch_order, order, crew.cancel_scope)
            if order.follow:
                crew.start_soon(self._tell_progress, group)
            receipt = await group.retire(
                self.record, by_after=order.left_after(), haste=order.haste
            )
            crew.cancel_scope.cancel()
        return receipt

    async def _watch_order(self, order: Order, scope: trio.CancelScope) -> None:
        while self.record.order is order and not order.stays:
            await self.record.ordered.wait()
        scope.cancel()

    async def _tell_progress(self, group: Group) -> None:
        """Tell the worker how far its departure is, again and again."""
        while True:
            with suppress(AemeshError):  # how the departure goes does not hang on it
                told = await group.progress(self.record)
                if told is not None:
                    await self.link.tell(wire.Leaving(**asdict(told)))
            await trio.sleep(limits.DEPARTURE_TOLD_EVERY)

    async def _keep(self, group: Group) -> bool:
        """Let the member stay; False: this engine has it leave and join anew."""
        record = self.record
        self.expected = 0.0
        if await group.expect(record, by_after=None):
            record.membership.step(Happening.STAYS, now=self.wall())
            self._say("worker.stays", f"{record.name} stays in {group.name} after all")
            return True
        await group.lose(record, self.member)
        return False

    async def _wait(
        self, *waits: Callable[[], Awaitable[object]], within: float = math.inf
    ) -> None:
        """Wait for the first of several things.

        Who is kept for a group meanwhile is given back in time, or `within` seconds.
        """
        if self.vacant_until < math.inf:
            latest = trio.current_time() + within
            self.vacant_until = min(self.vacant_until, latest)
        with trio.move_on_at(self.vacant_until) as scope:
            await wait_any(*waits)
        if scope.cancelled_caught:
            await self._give_back()

    async def _watch_pulse(self) -> None:
        """Keep the membership's view of the heartbeat; tell when it changes."""
        while True:
            pulse = await self.link.wait_pulse_change()
            if pulse is Pulse.SUSPECT:
                self.record.membership.step(Happening.SILENT, now=self.wall())
                after = limits.SUSPECT_AFTER
                text = f"{self.record.name} is silent for {after:g} s"
                self._say("worker.suspect", text)
            elif pulse is Pulse.ALIVE:
                self.record.membership.step(Happening.HEARD, now=self.wall())
                self._say("worker.heard", f"{self.record.name} is heard again")

    def _tell_end(self, closed: Closed) -> None:
        record = self.record
        serving = record.membership.group
        at_ease = closed.ending is Ending.BYE and serving is None
        happening = Happening.PARTED if at_ease else Happening.BROKEN
        record.membership.step(happening, now=self.wall())
        record.until = 0.0  # it says so anew when it comes back
        record.aside = record.aside if record.aside == DRAINED else ""
        if at_ease:
            self._say("worker.left", f"{record.name} left: {closed}")
        else:
            where = f" while it served {serving}" if serving else ""
            text = f"{record.name} is lost{where}: {closed}"
            group = None if serving is None else GroupName(serving)
            self.history.add("worker.lost", text, worker=record.name, group=group)
            if record.standing.lost(now=trio.current_time()):
                self._tell_aside()

    def _finish(self, order: Order, error: Exception | None) -> None:
        order.error = error
        if self.record.order is order:
            self.record.order = None
        order.done.set()

    def _say(self, kind: str, text: str) -> None:
        group = self.record.membership.group
        self.history.add(kind, text, worker=self.record.name, group=group)


def summed_up(receipt: Receipt) -> str:
    """Return a receipt as the history tells it."""
    text = f"{receipt.moved} pieces moved ({receipt.moved_bytes} bytes),"
    text += f" {receipt.lost} lost, {receipt.finished} tasks finished,"
    return f"{text} {receipt.restarted} cut off, in {receipt.took_after:.1f} s"


def _whose(record: WorkerRecord) -> str:
    if record.waits:
        return "for other masters, which want it"
    return f"held by {record.holder}"
