"""A command spread over the members of a group, an item at a time.

Each item is a job of its own, with a thread here that takes what it says; Python's
threads wait for the master and do nothing else.  What an item says is whole when it is
given, never mixed with others'.  In a durable run a finished item is kept by the master
before it is given; one that was kept before is given at once.

A master that is killed takes the jobs with it, for they are nobody's then; it is waited
for, and they begin again.
"""

from __future__ import annotations

import enum
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.client.ended import Ended, packed, unpacked
from aemesh.client.item import ITEM_VARIABLE, LIFE_VARIABLE, RUN_VARIABLE
from aemesh.client.patience import Patience
from aemesh.errors import (
    EngineError,
    GroupClosedError,
    NoMasterError,
    NotBegunError,
    RunFullError,
    UnknownNameError,
    UnreachableError,
)
from aemesh.model.group import MemberState
from aemesh.model.job import RELEASED, Channel
from aemesh.model.run import ItemId, Piece
from aemesh.policy.spreading import After, Spreading

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from aemesh.client.memberjob import MemberJob
    from aemesh.client.runs import Run
    from aemesh.model.view import StatusView

# How often it is asked who serves the group now.
_LOOK_AFTER = 1.0
# What a shell says of a command that could not be started.
_NOT_STARTED = 127
# At an end by Ctrl-C: jobs end in two seconds, and what tells us so follows.
_JOIN_AFTER = 5.0


class _How(enum.Enum):
    """How a job came to its end."""

    ENDED = "the command did"
    LOST = "its member was lost"
    LEFT = "its member has left, as planned"
    NOT_BEGUN = "there was no place for it, or no connection"
    BROKE = "the connection to the master did, or the master said that its own did"


@dataclass(frozen=True, slots=True)
class _Begun:
    """A job runs on its member."""

    number: int


@dataclass(frozen=True, slots=True)
class _Over:
    """A job has ended; if the master is another by now, its member is not blamed."""

    ended: Ended
    how: _How
    life: float  # of the master that began it
    error: Exception | None = None  # that ends the whole


@dataclass(frozen=True, slots=True)
class Order:
    """One item: its command, and its id if it is kept."""

    argv: tuple[str, ...]
    id: ItemId | None = None
    title: str = ""


class Spread:
    """Runs orders on the members of a group; `results` yields them as they end.

    `wait` returns once the group has members, or raises when it has waited enough.
    """

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        orders: Sequence[Order],
        *,
        status: Callable[[], StatusView],
        group: str,
        wait: Callable[[], object],
        start: Callable[[str, tuple[str, ...], Mapping[str, str]], MemberJob],
        run: Run | None = None,
        retries: int = 2,
        slots: int | None = None,
    ) -> None:
        self.orders = orders
        self.waits = False  # there is no member
        self._status = status
        self._wait = wait
        self._group = group
        self._life = 0.0  # when the master began that was there last
        self._start = start
        self._run = run
        self._slots = slots
        self._stop = threading.Event()
        self._patience = Patience(self._stop)
        self._news: queue.SimpleQueue[_Begun | _Over] = queue.SimpleQueue()
        self._threads: set[threading.Thread] = set()
        self._jobs: set[MemberJob] = set()
        self._lock = threading.Lock()
        self._names: dict[str, str] = {}  # of members, by key
        self._kept = {item.id for item in run.items()} if run is not None else set()
        self._spreading = Spreading(
            (n for n, order in enumerate(orders) if order.id not in self._kept),
            retries=retries,
        )

    @property
    def running(self) -> int:
        """How many items run now."""
        return self._spreading.running

    @property
    def members(self) -> list[str]:
        """The names of the members that were seen."""
        return sorted(set(self._names.values()))

    def aside(self) -> dict[str, str]:
        """Return the names of members that get nothing now, and why."""
        told = self._spreading.aside(time.monotonic())
        return {self._names[key]: why for key, why in told.items()}

    def results(self, *, tick: Callable[[], None] = lambda: None) -> Generator[Ended]:
        """Yield each item once it has ended for good; what was kept comes first.

        `tick` is called now and then.  Closed, it ends all jobs.  Raises
        `GroupClosedError`, and what `wait` does.
        """
        try:
            yield from self._from_ledger()
            looked_at = -_LOOK_AFTER
            while not self._spreading.is_over:
                now = time.monotonic()
                if now - looked_at >= _LOOK_AFTER:
                    looked_at = now
                    self._look()
                self._begin()
                ended = self._next_ended()
                tick()
                if ended is not None:
                    yield ended
        finally:
            self._end()

    def _from_ledger(self) -> Iterator[Ended]:
        """Yield what was kept before, in the order of the items."""
        kept = [n for n, order in enumerate(self.orders) if order.id in self._kept]
        if self._run is None or not kept:
            return
        ids = [str(self.orders[number].id) for number in kept]
        for number, value in zip(kept, self._run.values(ids), strict=True):
            yield unpacked(number, self.orders[number].argv, value or b"")

    def _look(self) -> None:
        """See who serves the group now; a master that is away is waited for."""
        status = self._patience.ask(self._status)
        self._life = status.started_at
        views = [view for view in status.workers if view.group == self._group]
        self._names |= {view.key: view.name for view in views}
        slots = {
            view.key: self._slots or max(view.cores, 1)
            for view in views
            if view.state != MemberState.DRAINING.value
        }
        self._spreading.see(slots)
        alone = not slots and not self.running
        states = {group.name: group.state for group in status.groups}
        if alone and self.waits and states.get(self._group) != "closing":
            self._wait_members()
        self.waits = alone

    def _wait_members(self) -> None:
        try:
            self._patience.ask(self._wait)
        except UnknownNameError:
            raise GroupClosedError(self._group) from None

    def _begin(self) -> None:
        while (found := self._spreading.next(time.monotonic())) is not None:
            number, member = found
            thread = threading.Thread(
                target=self._carry, args=(number, member), daemon=True
            )
            self._threads = {one for one in self._threads if one.is_alive()} | {thread}
            thread.start()

    def _next_ended(self) -> Ended | None:
        """Wait a little for news of a job; return its item if that is settled now."""
        try:
            news = self._news.get(timeout=_LOOK_AFTER)
        except queue.Empty:
            return None
        if isinstance(news, _Begun):
            self._spreading.begun(news.number)
            return None
        if news.error is not None:
            raise news.error
        ended, after = news.ended, self._settle(news)
        ended.tries = self._spreading.tries(ended.number) + (after is After.DONE)
        return None if after is After.AGAIN else ended

    def _settle(self, over: _Over) -> After:
        """Note how a job ended; return what becomes of its item."""
        ended, now = over.ended, time.monotonic()
        match over.how:
            case _How.ENDED:
                return self._spreading.ended(
                    ended.number, ok=ended.ok, took=ended.took_after, now=now
                )
            case _How.LOST:
                return self._spreading.lost(ended.number, now=now)
            case _How.LEFT:
                self._spreading.left(ended.number)
            case _How.NOT_BEGUN:
                self._spreading.not_begun(ended.number, ended.reason, now=now)
            case _How.BROKE:
                self._look()
                if self._life == over.life:
                    return self._spreading.broke(ended.number)
                self._spreading.put_back(ended.number)
        return After.AGAIN

    def _carry(self, number: int, member: str) -> None:
        """Run an item on a member, in a thread of its own."""
        order = self.orders[number]
        ended = Ended(
            number,
            order.argv,
            self._names[member],
            code=-1,
            reason="",
            began_at=time.time(),
            took_after=0.0,
            tries=1,
        )
        began, life = time.monotonic(), self._life
        how = _How.ENDED
        error: Exception | None = None
        try:
            self._run_one(order, member, ended)
            how = _how(ended)
            ended.took_after = time.monotonic() - began
            if ended.ok:
                self._keep(order, ended)
        except EngineError as exc:
            ended.code, ended.reason = _NOT_STARTED, str(exc)
        except RunFullError as exc:
            how, ended.code, ended.reason = _How.ENDED, 1, str(exc)
        except UnknownNameError:
            how = _How.LEFT
        except NotBegunError as exc:
            how, ended.reason = _How.NOT_BEGUN, str(exc)
        except (NoMasterError, UnreachableError) as exc:
            how, ended.reason = _How.BROKE, str(exc)
        except Exception as exc:  # noqa: BLE001 - who waits for this thread gets it
            error = exc
        ended.took_after = time.monotonic() - began
        self._news.put(_Over(ended, how, life, error))

    def _run_one(self, order: Order, member: str, ended: Ended) -> None:
        job = self._start(member, order.argv, self._environment(order))
        self._news.put(_Begun(ended.number))
        with self._lock:
            self._jobs.add(job)
        try:
            with job:
                if self._stop.is_set():
                    return
                with suppress(UnreachableError):  # a quick one has ended
                    job.close_input()
                for chunk in job.output():
                    error = chunk.channel is Channel.STDERR
                    (ended.stderr if error else ended.stdout).add(chunk.data)
                exit_ = job.wait()
                ended.code, ended.reason = exit_.code, exit_.reason
        finally:
            with self._lock:
                self._jobs.discard(job)

    def _environment(self, order: Order) -> dict[str, str]:
        if self._run is None or order.id is None:
            return {}
        return {
            RUN_VARIABLE: self._run.key,
            LIFE_VARIABLE: str(self._run.life),
            ITEM_VARIABLE: order.id,
        }

    def _keep(self, order: Order, ended: Ended) -> None:
        """Have the master keep what came of an item; returns once it has."""
        run = self._run
        if run is None or order.id is None:
            return
        size = ended.stdout.size + ended.stderr.size
        if size > limits.RUN_VALUE_BYTES - limits.CHUNK_BYTES:
            msg = f"output of {size} bytes is not kept"
            hint = "write it to a file"
            most = f"at most {limits.RUN_VALUE_BYTES} bytes"
            raise RunFullError(msg, why=most, hint=hint)
        piece = Piece(order.id, packed(ended), order.title)
        self._patience.ask(lambda: run.commit([piece], worker=ended.worker))

    def _end(self) -> None:
        """End what runs, and wait until it has."""
        self._stop.set()
        with self._lock:
            running = list(self._jobs)
        for job in running:
            job.end()
        until = time.monotonic() + _JOIN_AFTER
        for thread in self._threads:
            thread.join(max(until - time.monotonic(), 0.0))

    def __repr__(self) -> str:
        return f"<Spread of {len(self.orders)} items: {self._spreading!r}>"


def _how(ended: Ended) -> _How:
    """Return how a job came to its end that has one."""
    if not ended.reason:
        return _How.ENDED
    return _How.LEFT if ended.reason == RELEASED else _How.LOST
