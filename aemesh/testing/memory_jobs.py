"""Jobs in memory: a few programs that start, talk and end without a process.

Held to the same checks as `aemesh.host.jobs` (`aemesh.testing.checks_jobs`), as far
as what they run goes: ``cat``, ``echo WORDS``, ``false`` and ``sleep``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh.errors import EngineError, UnreachableError
from aemesh.model.job import RELEASED, Channel, Chunk, JobExit, JobSpec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Collection, Mapping

    from aemesh.host.jobsocket import Answer
    from aemesh.model.names import JobId

_KILLED = 137
_NOTHING: Mapping[str, bytes] = {}


class MemoryJob:
    """One job; implements `aemesh.plugin.Job`."""

    def __init__(
        self, spec: JobSpec, tls: Mapping[str, bytes], answer: Answer | None = None
    ) -> None:
        self.spec = spec
        self.answer = answer  # what a program asks its agent with
        self.tls = dict(tls)
        self.exit: JobExit | None = None
        self._over = trio.Event()
        self._lines, self._out = trio.open_memory_channel[bytes](1000)

    def __repr__(self) -> str:
        state = "running" if self.exit is None else f"ended with {self.exit.code}"
        return f"<MemoryJob {' '.join(self.spec.argv)}: {state}>"

    async def send(self, data: bytes) -> None:
        """Give the program input; ``cat`` says it again."""
        await trio.lowlevel.checkpoint()
        if self.exit is not None:
            msg = "the job takes no input"
            raise UnreachableError(msg, why="it ended")
        if self.spec.argv[0] == "cat":
            await self._lines.send(data)

    async def close_input(self) -> None:
        """End the input; ``cat`` ends with it."""
        await trio.lowlevel.checkpoint()
        if self.spec.argv[0] == "cat":
            self.finish(JobExit(0))

    async def output(self) -> AsyncGenerator[Chunk, None]:
        """Iterate over what it says."""
        async for data in self._out:
            yield Chunk(Channel.STDOUT, data)

    async def wait(self) -> JobExit:
        """Wait until it is over."""
        await self._over.wait()
        assert self.exit is not None
        return self.exit

    async def end(self, *, term_after: float) -> JobExit:
        """End it; none of these programs resists."""
        del term_after
        self.finish(JobExit(_KILLED, RELEASED))
        return await self.wait()

    def say(self, data: bytes) -> None:
        """Let the program say something."""
        self._lines.send_nowait(data)

    def finish(self, exit_: JobExit) -> None:
        """Let the program end, as it would by itself or by a signal."""
        if self.exit is None:
            self.exit = exit_
            self._lines.close()
            self._over.set()


class MemoryJobs:
    """What runs jobs on one host in memory."""

    def __init__(self) -> None:
        self.broken: set[str] = set()  # programs that end with 1 at once
        self.jobs: dict[JobId, MemoryJob] = {}
        self.listening: dict[int, str] = {}  # where jobs listen, by port

    @property
    def running(self) -> list[MemoryJob]:
        """The jobs that have not ended."""
        return [job for job in self.jobs.values() if job.exit is None]

    async def start(
        self,
        job_id: JobId,
        spec: JobSpec,
        *,
        tls: Mapping[str, bytes] = _NOTHING,
        answer: Answer | None = None,
    ) -> MemoryJob:
        """Start one of the programs; raises `EngineError` for any other."""
        await trio.lowlevel.checkpoint()
        job = MemoryJob(spec, tls, answer)
        match spec.argv:
            case (program, *_) if program in self.broken:
                job.finish(JobExit(1))
            case ("cat" | "sleep",):
                pass
            case ("echo", *words):
                job.say(" ".join(words).encode() + b"\n")
                job.finish(JobExit(0))
            case ("false",):
                job.finish(JobExit(1))
            case _:
                what = f"job {job_id} cannot start {spec.argv[0]}"
                raise EngineError(what, why="no such program")
        self.jobs[job_id] = job
        return job

    async def listening_at(self, job_ids: Collection[JobId], port: int) -> str | None:
        """Return where one of these jobs listens, as the test has it."""
        await trio.lowlevel.checkpoint()
        return self.listening.get(port) if set(job_ids) & self.jobs.keys() else None
