"""How a worker leaves: agreed, changed, called off, carried out; it keeps the time.

The worker proposes its end and its master has the engine move work and data in time.
But the end is the worker's: what is left of its jobs is killed then, whether the
master has answered, is silent, or is gone.  So the owner's word does not rest on
anybody else's.

The end is a time of day: a machine that slept through an hour of it leaves on time.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError
from aemesh.model.group import Haste, Progress, Receipt
from aemesh.model.names import GroupName, NodeName
from aemesh.model.view import DepartureView
from aemesh.policy.departure import Moments, moments
from aemesh.protocol import wire

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from aemesh.model.key import KeyId
    from aemesh.net.link import Link
    from aemesh.net.links import Links
    from aemesh.worker.held import Held

_log = logging.getLogger(__name__)
# The time of day is looked at this often: it may be set, and machines sleep.
_LOOK_EVERY = 5.0
# For who names no end: what a graceful leave may take, and one that moves nothing.
_SOON = limits.RETIRE_AFTER + limits.DEPARTURE_MOVED_BEFORE
_NOTICE = {
    Haste.LATE: _SOON,
    Haste.SOON: _SOON,
    Haste.NOW: limits.DEPARTURE_QUICK_AFTER,
}
# Whoever follows has the receipt by then, or does not read.
_HEARD_AFTER = 0.3


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A departure that is agreed."""

    end: float  # seconds since 1970
    haste: Haste
    why: str
    due: Moments


class Parting:
    """The departure of one worker; `run` returns when it is to leave."""

    def __init__(self, held: Held, links: Links, wall: Callable[[], float]) -> None:
        self.plan: Plan | None = None
        self.receipt = Receipt(NodeName(""), GroupName(""), graceful=False)
        self._held = held
        self._links = links
        self._wall = wall
        self._state = "stays"
        self._progress = Progress()
        self._changed = trio.Event()
        self._followers = 0
        self._asked: Plan | None = None  # who holds us was asked to let us go for it

    def __repr__(self) -> str:
        return f"<Parting: {self._state}>"

    def agree(self, end: float | None, haste: Haste, why: str) -> None:
        """Leave at `end`, seconds since 1970, or as soon as `haste` lets us.

        Raises `RefusedError` if we are on our way out.
        """
        self._check_not_over()
        now = self._wall()
        if end is None:
            end = now + _NOTICE[haste]
        due = moments(now, end, haste)
        self.plan = Plan(end, haste, why, due)
        self._state = "agreed"
        self._tell_changed()
        self._held.tell_changed()

    def call_off(self) -> None:
        """Stay after all; raises `RefusedError` if there is nothing to call off."""
        self._check_not_over()
        if self.plan is None:
            what = "there is nothing to call off"
            raise RefusedError(what, why="this worker has not agreed to leave")
        self.plan = None
        self._state = "stays"
        self._tell_changed()
        self._held.tell_changed()

    @property
    def is_going(self) -> bool:
        """Whether we leave as soon as whoever holds us has let us go."""
        if self._state in ("parting", "left"):
            return True
        plan = self.plan
        return plan is not None and (
            plan.haste is not Haste.LATE or self._asked is plan
        )

    def check_takes(self) -> None:
        """Raise `RefusedError` if whoever takes us now would lose us at once."""
        if self.is_going:
            what = "the worker leaves"
            raise RefusedError(what, why="its owner wants it back")

    def until_after(self, listener: KeyId | None = None) -> float | None:
        """Return the seconds until an end that masters plan with; None without one.

        When we go there is no time left for any that does not hold us.
        """
        lease = self._held.tenancy.lease
        holds = lease is not None and lease.master == listener
        if self.is_going and listener is not None and not holds:
            return 0.0
        if self.plan is None or self.plan.haste is not Haste.LATE:
            return None
        return max(0.0, self.plan.end - self._wall())

    def view(self) -> DepartureView:
        """Return how things stand."""
        plan, over = self.plan, self._state == "left"
        return DepartureView(
            state=self._state,
            end=plan.end if plan else 0.0,
            haste=plan.haste.value if plan else "",
            progress=self._progress,
            receipt=self.receipt if over else None,
        )

    async def follow(self) -> AsyncGenerator[DepartureView]:
        """Yield how things stand, and whenever that changes; the end is the last."""
        self._followers += 1
        try:
            while True:
                changed = self._changed
                view = self.view()
                yield view
                if view.state in ("left", "stays"):
                    return
                await changed.wait()
        finally:
            self._followers -= 1
            self._tell_changed()

    async def run(self) -> None:
        """Wait until it is agreed to leave, and do it; jobs may still run then."""
        while True:
            plan = await self._wait_due()
            self._state = "leaving"
            self._tell_changed()
            if await self._leave(plan):
                break
            if self.plan is None or self.plan.due.ask_at > self._wall():
                await self._say_stay()  # for good, or until it asks again
        self._state = "parting"

    async def end_jobs(self) -> None:
        """End what still runs, in the time that is left, and tell who follows."""
        assert self.plan is not None
        left = self.plan.due.kill_at - self._wall()
        term_after = min(max(0.0, left), limits.TERM_AFTER)
        with trio.CancelScope(shield=True):  # bounded: SIGKILL follows
            await self._held.let_go(term_after)
            self._state = "left"
            self._tell_changed()
            with trio.move_on_after(_HEARD_AFTER):
                while self._followers:
                    await self._changed.wait()

    def take(self, link: Link, body: wire.Leaving) -> None:
        """Take in how far the departure is, from the master that holds us."""
        lease = self._held.tenancy.lease
        if lease is None or lease.master != link.peer.key_id:
            return
        self._progress = Progress(
            pieces=body.pieces,
            bytes=body.bytes,
            needs_after=body.needs_after,
            fits=body.fits,
            moving=body.moving,
            moved=body.moved,
            moved_bytes=body.moved_bytes,
            running=body.running,
        )
        self._tell_changed()

    async def _wait_due(self) -> Plan:
        """Wait until it is time to ask for what is agreed."""
        while True:
            changed, plan = self._changed, self.plan
            left = _LOOK_EVERY
            if plan is not None:
                left = plan.due.ask_at - self._wall()
                if left <= 0.0:
                    return plan
            with trio.move_on_after(min(left, _LOOK_EVERY) if plan else float("inf")):
                await changed.wait()

    async def _leave(self, plan: Plan) -> bool:
        """Ask to be let go until we are, or have to; False: the plan is another."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_plan, plan, nursery.cancel_scope)
            nursery.start_soon(self._watch_time, plan, nursery.cancel_scope)
            await self._ask(plan)
            nursery.cancel_scope.cancel()
        return self.plan is plan

    async def _watch_plan(self, plan: Plan, scope: trio.CancelScope) -> None:
        while self.plan is plan:
            await self._changed.wait()
        scope.cancel()

    async def _watch_time(self, plan: Plan, scope: trio.CancelScope) -> None:
        """At the end, nobody is waited for: jobs end, and a receipt has until then."""
        await self._sleep_until(plan.due.term_at)
        left = plan.due.kill_at - self._wall()
        lease = self._held.tenancy.lease
        if lease is not None:  # the master's word would take the place of this
            self.receipt = replace(self.receipt, group=lease.group)
        with trio.CancelScope(shield=True):  # bounded: SIGKILL follows
            await self._held.let_go(min(max(0.0, left), limits.TERM_AFTER))
        await self._sleep_until(plan.due.kill_at)
        scope.cancel()

    async def _sleep_until(self, at: float) -> None:
        while (left := at - self._wall()) > 0.0:  # noqa: ASYNC110 - of a clock
            await trio.sleep(min(left, _LOOK_EVERY))

    async def _ask(self, plan: Plan) -> None:
        """Have whoever holds us take its work back; who is free may be taken yet."""
        while True:
            changed = self._held.changed
            lease = self._held.tenancy.lease
            link = self._links.get(lease.master) if lease else None
            if link is not None and await self._ask_master(link, plan):
                return
            if plan.haste is not Haste.LATE and (link is None or link.closed):
                return  # nobody is there who could take anything
            with trio.move_on_after(1.0):  # a link that is back is no change of lease
                await changed.wait()

    async def _ask_master(self, link: Link, plan: Plan) -> bool:
        """Ask one master; whether it has let us go."""
        by_after = max(0.0, plan.due.moved_at - self._wall())
        self._asked = plan
        body = wire.Leave(
            reason=plan.why, by_after=by_after, haste=plan.haste.value, follow=True
        )
        try:
            left = await link.request(body, wire.Left)
        except AemeshError as exc:
            _log.warning("%s did not let us go: %s", link.peer.name, exc)
            return False
        if left.stays:
            return False
        self.receipt = Receipt(
            NodeName(left.member),
            GroupName(left.group),
            graceful=left.graceful,
            moved=left.moved,
            lost=left.lost,
            took_after=left.took_after,
            moved_bytes=left.moved_bytes,
            finished=left.finished,
            restarted=left.restarted,
        )
        return True

    async def _say_stay(self) -> None:
        """Tell whoever may have been asked; one that cannot know it joins us anew."""
        self._progress = replace(self._progress, moving=False)
        for link in list(self._links.values()):
            try:
                with trio.fail_after(limits.ANSWER_AFTER):
                    await link.request(wire.Stay(), wire.Done)
            except (AemeshError, trio.TooSlowError):
                link.close("it stays after all")

    def _check_not_over(self) -> None:
        if self._state in ("parting", "left"):
            what = "it is too late"
            raise RefusedError(what, why="this worker is on its way out")

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
