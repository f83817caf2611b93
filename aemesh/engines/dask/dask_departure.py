"""A member's departure, as its Dask scheduler carries it out; part of `dask_head.py`.

Dask's own way to retire a worker stops it at once, copies all of its results at one
time and in no order, and has no end. A departure has one: until it is time to move the
worker goes on with what it can finish; then the results that only it has are copied,
those first that are dearest to compute again; at the end it is let go, whatever is
left. When it is time is computed in `dask_plan.py`, from the run times that Dask has
seen and from the bandwidth that was measured; the first piece is copied ahead of all
others to measure it.
"""
# distributed is asyncio's, and Python 3.10 here has not one TimeoutError.
# ruff: noqa: TID251
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dask_plan import Piece, Plan, Task, make_plan, may_begin
from distributed.core import Status
from distributed.metrics import time as dask_time
from distributed.scheduler import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from distributed.scheduler import Scheduler, WorkerState

# How often a departure looks again: fine enough for its last second, light on the
# scheduler while there are minutes; and never more than a tenth of its time.
LOOK_AGAIN_AFTER = 0.1
LOOK_SELDOM_AFTER = 1.0
SELDOM_BEFORE = 60.0
LOOKING_SHARE = 10.0
# A heartbeat this much later than the order to stop was written after it was obeyed.
OBEYED_AFTER = 0.25
# Copies under way at one time: enough for the line never to be idle, few enough that
# what is worth most is through first.
AHEAD_AFTER = 0.5
# Less than this is made of talk, and measures no line.
MEASURED_BYTES = 256 * 1024
# A copy that did not come in three times its time is asked for elsewhere; of a line
# that was not measured it is not thought better than of a bad radio.
LATE_FACTOR, LATE_AFTER, SLOW_RATE = 3.0, 5.0, 1e6
# While copies are under way it is seen so soon that one has come: it measures the line.
SEEN_AFTER = 0.01
# Ancestors that are looked at for what one result costs: this tells dear from cheap.
ANCESTORS = 200
# Whoever stays at least so much longer can take what moves.
STAYS_AFTER = 60.0
# What nobody has seen a task of takes, as Dask guesses, for the worth of a result.
GUESS_AFTER = 0.5


class Departure:
    """The departure of one member: its end, what it does by then, what came of it."""

    def __init__(self, departures: Departures, member: str) -> None:
        self.member = member
        self.standing = True  # nobody waits for its end: the member is still in use
        self.moving = False
        self.over = False
        self.stays = False
        self.counted: dict[str, int] = {}
        self.plan = make_plan([], [], left=math.inf, rate=1.0)
        self._departures = departures
        self._scheduler = departures.scheduler
        self._deadline = math.inf
        self._soon = False
        self._wake = asyncio.Event()
        self._ended = asyncio.Event()
        self._began = 0.0  # to move
        self._looked_at = 0.0
        self._copies = Copies(self._scheduler, self._addresses)
        self._pause_after = LOOK_AGAIN_AFTER
        self._seen: set[TaskState] = set()
        self._before: set[TaskState] = set()
        self._finished_before = 0

    def begin(self) -> None:
        """Take the member's results for known; what it shares is not ours to move."""
        meant = self.workers()
        self._seen = only_copies(meant)
        self._before = held(meant) - self._seen
        self._finished_before = self._departures.ended(meant)
        for ws in meant:
            self._scheduler.check_idle_saturated(ws)

    def agree(self, by: float, *, soon: bool) -> None:
        """End in `by` seconds, or with `soon` as soon as nothing is left to do."""
        self._deadline = time.monotonic() + by
        self._soon = soon
        self._wake.set()

    def call_off(self) -> None:
        """Take the member back: it stays."""
        self.stays = self.over = True
        for ws in self.workers():
            if self.moving:
                self._tell(ws, Status.running)
            self._scheduler.check_idle_saturated(ws)
        self._departures.schedule_waiting(self.workers())
        self._ended.set()
        self._wake.set()

    async def wait(self) -> None:
        """Wait until all is moved, or time is up, or it stays."""
        await self._ended.wait()

    @property
    def left(self) -> float:
        """The seconds until the end."""
        return max(0.0, self._deadline - time.monotonic())

    def workers(self) -> list[WorkerState]:
        """Return the member's processes that are there now."""
        return self._departures.workers_of(self.member)

    async def run(self) -> None:
        """Look what there is to do, again and again, until it is over."""
        while not self.over:
            self._wake.clear()
            started = time.monotonic()
            self._look()
            took = time.monotonic() - started
            seldom = not self.moving and self.left > SELDOM_BEFORE
            pause = LOOK_SELDOM_AFTER if seldom else LOOK_AGAIN_AFTER
            self._pause_after = max(pause, LOOKING_SHARE * took)
            await self._pause(min(self._pause_after, self.left or pause))

    async def _pause(self, seconds: float) -> None:
        """Wait before looking again, less if there is news: a copy, or a new end."""
        until = time.monotonic() + max(seconds, SEEN_AFTER)
        while (rest := until - time.monotonic()) > 0.0:
            if self._copies.under_way:
                if self._copies.look():
                    return
                rest = min(rest, SEEN_AFTER)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), rest)
                return

    def may_take(self, ts: TaskState, ws: WorkerState) -> bool:
        """Whether a task that is sent there now would end in time."""
        if self.moving:
            return False
        work = self.plan.work_after - (time.monotonic() - self._looked_at)
        queue = ws.occupancy / max(ws.nthreads, 1)
        return bool(may_begin(learnt(ts), queue_after=queue, work_after=work))

    def progress(self) -> dict[str, Any]:
        """Return what is to be moved, and how far that is."""
        meant = self.workers()
        pieces = only_copies(meant)
        moved = self._moved(meant)
        return {
            "pieces": len(pieces),
            "bytes": sum(ts.nbytes for ts in pieces),
            "needs": round(self.plan.needs_after, 3),
            "fits": self.plan.fits >= len(pieces),
            "moving": self.moving,
            "moved": len(moved),
            "moved_bytes": sum(ts.nbytes for ts in moved),
            "running": sum(len(ws.processing) for ws in meant),
        }

    def count(self) -> None:
        """Say for good what came of it; the member is dropped now."""
        meant = self.workers()
        moved = self._moved(meant)
        cut = [ts for ws in meant for ts in ws.processing if runs(ts, ws)]
        self.counted = {
            "moved": len(moved),
            "moved_bytes": sum(ts.nbytes for ts in moved),
            "finished": self._departures.ended(meant) - self._finished_before,
            "lost": len(only_copies(meant)),
            "restarted": len(cut),
        }

    def _moved(self, meant: Iterable[WorkerState]) -> list[TaskState]:
        going = set(meant)
        return [ts for ts in self._seen if ts.who_has and not ts.who_has <= going]

    def _look(self) -> None:
        """Do what is due at this moment."""
        meant = self.workers()
        self._seen |= held(meant) - self._before
        pieces = only_copies(meant)
        self._copies.look()
        self._looked_at = time.monotonic()
        self.plan = self._make_plan(meant, pieces)
        if not self.moving:
            if self._soon or self.plan.work_after <= 0.0:
                self._begin_moving(meant)
            elif pieces and not self._copies.rate:
                self._probe(pieces)
        self._give_away(meant)
        if not self.moving:
            self._departures.schedule_waiting(meant)
        if self.moving:
            self._copy(self.plan.order, pieces)
        done = self.left <= 0.0 or (self.moving and self._is_done(meant, pieces))
        # Nobody waits yet for one that is only expected to go: look on until then.
        if done and not self.standing:
            self.over = True
            self._ended.set()

    def _is_done(self, meant: list[WorkerState], pieces: set[TaskState]) -> bool:
        return not pieces and not any(self._busy(ws) for ws in meant)

    def _busy(self, ws: WorkerState) -> bool:
        """Whether a task runs there that may still end in time."""
        if not ws.processing:
            return False
        if ws.last_seen < self._began + OBEYED_AFTER:
            return True  # not told yet which of them run
        running = {ts.key for ts in ws.executing if ts in ws.processing}
        return bool(running - self.plan.hopeless)

    def _make_plan(self, meant: list[WorkerState], pieces: set[TaskState]) -> Plan:
        tasks = [
            Task(ts.key, ws.address, learnt(ts), ws.executing.get(ts))
            for ws in meant
            for ts in sorted(ws.processing, key=lambda ts: ts.priority or ())
        ]
        worth = [Piece(ts.key, max(ts.nbytes, 0), cost_of(ts)) for ts in pieces]
        rate = self._copies.rate or line_of(self._scheduler, meant)
        return make_plan(tasks, worth, left=self.left, rate=rate)

    def _begin_moving(self, meant: list[WorkerState]) -> None:
        """Have the member begin nothing new; what runs there goes on."""
        self.moving = True
        self._began = dask_time()
        for ws in meant:
            self._tell(ws, Status.closing_gracefully)

    def _tell(self, ws: WorkerState, status: Status) -> None:
        # Here at once, and there as soon as it hears: nothing is sent in between.
        stimulus = f"aemesh-departure-{dask_time()}"
        self._scheduler.handle_worker_status_change(status, ws, stimulus)
        comm = self._scheduler.stream_comms.get(ws.address)
        if comm is not None:
            op = "worker-status-change"
            comm.send({"op": op, "status": status.name, "stimulus_id": stimulus})

    def _probe(self, pieces: set[TaskState]) -> None:
        """Copy one piece ahead of its time, to learn how fast the line is."""
        large = [ts for ts in pieces if ts.nbytes >= MEASURED_BYTES]
        if large and not self._copies.under_way:
            smallest = min(large, key=lambda ts: ts.nbytes)
            self._copy([smallest.key], {smallest})

    def _copy(self, order: Iterable[Any], pieces: set[TaskState]) -> None:
        ahead = max(AHEAD_AFTER, 2 * self._pause_after)
        takers = self._departures.takers(self)
        self._copies.go_on(order, pieces, takers, ahead_after=ahead)

    def _addresses(self) -> set[str]:
        return {ws.address for ws in self.workers()}

    def _give_away(self, meant: list[WorkerState]) -> None:
        """Offer waiting tasks to others; the process says no if one has begun."""
        for ws in meant:
            if self.moving:
                waiting = [ts for ts in ws.processing if not runs(ts, ws)]
            else:
                chosen = set(self.plan.gives)
                waiting = [ts for ts in ws.processing if ts.key in chosen]
            for ts in waiting:
                self._departures.give(ts, ws)


@dataclass
class Copy:
    """A copy that was asked for."""

    ts: TaskState
    taker: str
    asked_at: float
    nbytes: int


class Copies:
    """The results that are being copied to others, and how fast that goes."""

    def __init__(self, scheduler: Scheduler, giving: Callable[[], set[str]]) -> None:
        self._scheduler = scheduler
        self._giving = giving
        self._asked: dict[Any, Copy] = {}
        self._came_bytes = 0  # since the last measure
        self._busy_after = 0.0
        self._looked_at = 0.0
        self.rate = 0.0  # bytes a second; 0.0 until it is measured

    @property
    def under_way(self) -> bool:
        """Whether a copy was asked for that has not come."""
        return bool(self._asked)

    def look(self) -> bool:
        """See which copies have come, and how fast; return whether any has."""
        now = time.monotonic()
        if self._asked:
            self._busy_after += now - self._looked_at
        self._looked_at = now
        giving, came = self._giving(), 0
        for key, copy in list(self._asked.items()):
            holders = {ws.address for ws in copy.ts.who_has or ()}
            late = LATE_AFTER + LATE_FACTOR * copy.nbytes / (self.rate or SLOW_RATE)
            if holders - giving:
                self._came_bytes += copy.nbytes
                came += 1
            elif (
                holders  # else it was released: nobody needs it any more
                and copy.taker in self._scheduler.workers
                and now - copy.asked_at <= late
            ):
                continue
            del self._asked[key]
        if self._came_bytes >= MEASURED_BYTES and self._busy_after > 0.0:
            rate = self._came_bytes / self._busy_after
            self.rate = (self.rate + rate) / 2 if self.rate else rate
            self._came_bytes, self._busy_after = 0, 0.0
        return came > 0

    def go_on(
        self,
        order: Iterable[Any],
        pieces: set[TaskState],
        takers: list[WorkerState],
        *,
        ahead_after: float,
    ) -> None:
        """Ask for the next copies, so that the line is busy for `ahead_after`."""
        by_key = {ts.key: ts for ts in pieces}
        budget = max(self.rate * ahead_after, MEASURED_BYTES)
        flying = sum(copy.nbytes for copy in self._asked.values())
        loads = {ws: ws.nbytes for ws in takers}
        wishes: dict[str, list[Any]] = {}
        for key in order:
            ts = by_key.get(key)
            if ts is None or key in self._asked:
                continue
            if (self._asked and flying >= budget) or not loads:
                break
            taker = min(loads, key=lambda ws: loads[ws] / (ws.memory_limit or 1))
            loads[taker] += ts.nbytes
            flying += ts.nbytes
            copy = Copy(ts, taker.address, time.monotonic(), ts.nbytes)
            self._asked[key] = copy
            wishes.setdefault(taker.address, []).append(key)
        for address, keys in wishes.items():
            stimulus = f"aemesh-move-{dask_time()}"
            self._scheduler.request_acquire_replicas(
                address, keys, stimulus_id=stimulus
            )


class Departures:
    """All departures of a group, and what the scheduler asks of them."""

    def __init__(
        self,
        scheduler: Scheduler,
        member_of: Callable[[WorkerState], str],
        ended: Callable[[WorkerState], int],
    ) -> None:
        self.scheduler = scheduler
        self._member_of = member_of
        self._ended = ended
        self._departures: dict[str, Departure] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def get(self, member: str) -> Departure | None:
        """Return the departure of a member, if it has one."""
        return self._departures.get(member)

    def agree(self, member: str, by: float, *, soon: bool) -> Departure:
        """Have a member leave in `by` seconds; return its departure, or its new end."""
        departure = self._departures.get(member)
        if departure is None:
            departure = self._departures[member] = Departure(self, member)
            departure.begin()
            task = asyncio.create_task(departure.run())
            self._tasks.add(task)  # the loop alone would hold it weakly
            task.add_done_callback(self._tasks.discard)
        departure.agree(by, soon=soon)
        return departure

    def call_off(self, member: str) -> None:
        """Let a member stay; one that does not leave stays anyhow."""
        departure = self._departures.pop(member, None)
        if departure is not None and not departure.over:
            departure.call_off()

    def forget(self, member: str) -> None:
        """The member is gone."""
        departure = self._departures.pop(member, None)
        if departure is not None:
            departure.over = True

    def of(self, ws: WorkerState) -> Departure | None:
        """Return the departure that this process is part of."""
        if not self._departures:
            return None  # most of the time, and asked for each task
        return self._departures.get(self._member_of(ws))

    def workers_of(self, member: str) -> list[WorkerState]:
        """Return a member's processes."""
        workers = self.scheduler.workers.values()
        return [ws for ws in workers if self._member_of(ws) == member]

    def ended(self, meant: Iterable[WorkerState]) -> int:
        """Return how many tasks have ended on these, ever."""
        return sum(map(self._ended, meant))

    def takers(self, departure: Departure) -> list[WorkerState]:
        """Return those who stay, or stay long enough to hand on what they take."""
        enough = departure.left + STAYS_AFTER

        def stays(ws: WorkerState) -> bool:
            own = self.of(ws)
            return own is None or (own.left > enough and not own.moving)

        return [ws for ws in self.scheduler.running if stays(ws)]

    def choose(self, ts: TaskState, ws: WorkerState) -> WorkerState | None:
        """Return who gets a task that is meant for `ws`; None if nobody can end it."""
        departure = self.of(ws)
        if departure is None or departure.may_take(ts, ws):
            return ws
        scheduler = self.scheduler
        queued = ts.state == "queued" or (
            ts.state == "waiting" and ts._queueable and scheduler.is_rootish(ts)  # noqa: SLF001
        )
        pool: Iterable[WorkerState] = scheduler.running
        if queued and not math.isinf(scheduler.WORKER_SATURATION):
            pool = scheduler.idle_task_count
        return self._best(ts, pool)

    def give(self, ts: TaskState, ws: WorkerState) -> None:
        """Ask a process to hand a waiting task on; a drop does it in the end, too."""
        stealing = self.scheduler.extensions.get("stealing")
        if stealing is None or ts in stealing.in_flight:
            return
        thief = self._best(ts, self.scheduler.running - {ws})
        if thief is not None:
            stealing.move_task_request(ts, ws, thief)

    def schedule_waiting(self, meant: Iterable[WorkerState]) -> None:
        """Send these what waits for somebody, if they can end it by now."""
        scheduler, stimulus = self.scheduler, f"aemesh-waiting-{dask_time()}"
        if not scheduler.unrunnable and not scheduler.queued:
            return
        for ws in meant:
            waiting = scheduler.bulk_schedule_unrunnable_after_adding_worker(ws)
            scheduler.transitions(waiting, stimulus)
        scheduler.stimulus_queue_slots_maybe_opened(stimulus_id=stimulus)

    def _best(self, ts: TaskState, pool: Iterable[WorkerState]) -> WorkerState | None:
        scheduler = self.scheduler
        valid = scheduler.valid_workers(ts)

        def takes(ws: WorkerState) -> bool:
            own = self.of(ws)
            return own is None or own.may_take(ts, ws)

        able = [ws for ws in pool if takes(ws)]
        wanted = able if valid is None else [ws for ws in able if ws in valid]
        if not wanted and ts.loose_restrictions:
            wanted = able
        objective = partial(scheduler.worker_objective, ts)
        return min(wanted, key=objective, default=None)


def held(meant: Iterable[WorkerState]) -> set[TaskState]:
    """Return the results that these hold."""
    return {ts for ws in meant for ts in ws.has_what}


def only_copies(meant: Iterable[WorkerState]) -> set[TaskState]:
    """Return the results that nobody but these holds."""
    going = set(meant)
    return {ts for ts in held(going) if going.issuperset(ts.who_has or ())}


def runs(ts: TaskState, ws: WorkerState) -> bool:
    """Whether a task runs on a worker, as that said last."""
    return ts in ws.executing


def learnt(ts: TaskState) -> float | None:
    """Return the seconds that tasks of this kind took, None if none has ended."""
    average = ts.prefix.duration_average
    return float(average) if average >= 0 else None


def line_of(scheduler: Scheduler, meant: Iterable[WorkerState]) -> float:
    """Return the bytes a second that others got from these, as far as Dask measured.

    Dask's one number for all of a group starts as a guess, and is slow to learn.
    """
    own = {ws.address for ws in meant}
    seen = [
        rate
        for (taker, giver), rate in scheduler.bandwidth_workers.items()
        if giver in own and taker not in own
    ]
    return float(sum(seen) / len(seen) if seen else scheduler.bandwidth)


def cost_of(ts: TaskState) -> float:
    """Return the seconds to compute a result again, with what is gone beneath it."""
    cost, waiting, known = 0.0, [ts], {ts}
    while waiting and len(known) <= ANCESTORS:
        one = waiting.pop()
        if one.run_spec is None:
            return math.inf  # it was given, not computed
        takes = learnt(one)
        cost += GUESS_AFTER if takes is None else takes
        for below in one.dependencies:
            if not below.who_has and below not in known:
                known.add(below)
                waiting.append(below)
    return cost
