"""Spares: jobs that were started before anybody asked, so that what is slow is done.

The owner of the machine says how many; who may ask for them says of what kind.  A
spare says a line when it is warm.  From then on it costs no processor, only memory,
which is measured then.  One that is taken is replaced a little later, when whoever
took it has joined.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import trio

from aemesh import limits
from aemesh.errors import EngineError
from aemesh.host.localjob import LocalJob
from aemesh.model.job import JobSpec
from aemesh.policy.warmth import plan_spares

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Spare:
    """A job that waits to be taken."""

    spec: JobSpec
    job: LocalJob
    warm: bool = False
    memory: int = 0  # bytes of PSS, once it is warm


@dataclass(slots=True, eq=False)
class Spares:
    """The spares of one agent; `run` it if those that are taken are replaced."""

    launch: Callable[[JobSpec], Awaitable[None]]  # starts one, and adds it
    crew: trio.Nursery
    count: int
    waiting: list[Spare] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)  # how many, or their memory
    _wanted: list[JobSpec] = field(default_factory=list)
    _died: list[tuple[JobSpec, float]] = field(default_factory=list)  # not before then
    _due: trio.Event = field(default_factory=trio.Event)

    def __repr__(self) -> str:
        warm = sum(spare.warm for spare in self.waiting)
        return f"<Spares: {warm} of {len(self.waiting)} warm, {self.count} at most>"

    @property
    def memory(self) -> int:
        """Bytes of PSS of those that are warm, as measured when they became it."""
        return sum(spare.memory for spare in self.waiting)

    def want(self, specs: Sequence[JobSpec]) -> None:
        """From now on have these, the likeliest first; `run` starts them soon."""
        wanted: list[JobSpec] = []
        for spec in map(_as_spare, specs):
            if spec not in wanted:
                wanted.append(spec)
        if wanted != self._wanted:
            self._wanted = wanted
            self._due.set()

    async def start(self, spec: JobSpec) -> None:
        """Want this one, too, and start it now; beyond `count`, do nothing."""
        spec = _as_spare(spec)
        if len(self.waiting) >= self.count:
            return
        if spec not in self._wanted:
            self._wanted.append(spec)
            self._due.set()  # there may be more than one of it
        await self.launch(spec)

    def add(self, spec: JobSpec, job: LocalJob) -> None:
        """Take in one that was started; until then it looks like an orphan."""
        spare = Spare(spec, job)
        self.waiting.append(spare)
        self.crew.start_soon(self._warm_up, spare)

    def take(self, spec: JobSpec) -> LocalJob | None:
        """Return a spare that does for this, and do without it from now on.

        It may have fewer of the modules to preload, and never one that is not named.
        """
        plain, modules = _plain(spec), set(spec.preload)
        found = [
            spare
            for spare in self.waiting
            if spare.job.running
            and _plain(spare.spec) == plain
            and modules >= set(spare.spec.preload)
        ]
        if not found:
            return None
        best = max(found, key=lambda one: (one.warm, len(one.spec.preload)))
        self._remove(best)
        return best.job

    def drop(self, job: LocalJob) -> None:
        """Forget one that has ended by itself."""
        for spare in self.waiting:
            if spare.job is job:
                # It would die again at once: an environment that was half installed.
                again = trio.current_time() + limits.SPARE_DIED_AGAIN_AFTER
                self._died = [one for one in self._died if one[0] != spare.spec]
                self._died.append((spare.spec, again))
                self._remove(spare)
                return

    async def run(self) -> None:
        """Have as many as there are to be, until cancelled."""
        while True:
            with trio.move_on_at(self._again_at()):
                await self._due.wait()
            self._due = trio.Event()
            await trio.sleep(limits.SPARE_AGAIN_AFTER)
            if not self._due.is_set():  # else one was taken just now
                await self._fill()

    def _again_at(self) -> float:
        now = trio.current_time()
        self._died = [one for one in self._died if one[1] > now]
        return min((at for _, at in self._died), default=math.inf)

    async def _fill(self) -> None:
        self._again_at()
        dead = [spec for spec, _ in self._died]
        wanted = [spec for spec in self._wanted if spec not in dead]
        present = [(spare.spec, spare.warm) for spare in self.waiting]
        change = plan_spares(wanted, present, count=self.count)
        for spare in [self.waiting[index] for index in change.end]:
            self._remove(spare)
            spare.job.end_nowait(term_after=0, reason="nobody wants this spare now")
        for spec in change.start:
            with suppress(EngineError):
                await self.launch(spec)

    async def _warm_up(self, spare: Spare) -> None:
        """Wait until a spare says that it is warm; look then what it takes."""
        try:
            await spare.job.wait_said()
            memory = await trio.to_thread.run_sync(spare.job.read_memory)
        except OSError as error:  # files have run out: it serves as it is
            _log.warning("it is not known whether %r is warm: %s", spare.job, error)
            return
        if spare in self.waiting and spare.job.running:
            spare.warm, spare.memory = True, memory
            self._tell_changed()

    def _remove(self, spare: Spare) -> None:
        self.waiting.remove(spare)
        self._tell_changed()

    def _tell_changed(self) -> None:
        self._due.set()
        self.changed.set()
        self.changed = trio.Event()


def _as_spare(spec: JobSpec) -> JobSpec:
    return replace(spec, tls=False)  # certificates come when it is taken


def _plain(spec: JobSpec) -> JobSpec:
    return replace(spec, tls=False, preload=())
