"""Scripts that run without a terminal: what is known of them, and their end.

::

    <root>/jobs/7/          0700, one for each `aemesh run --detach`
        job.json            what it is, and which process sees it out
        ended.json          written by that process when nothing is left of it
        output.*            see `joboutput`

Nobody asks a server: what a job is, its files and the process table say.  The process
that sees it out (its *supervisor*) writes the exit code last of all.  So a supervisor
that is gone without a code was killed, or the machine went down: the job is lost, and
what it left running on this machine is ended by whoever notices.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from aemesh import limits
from aemesh.errors import JobLostError, SettingsError, UnknownNameError
from aemesh.host.folders import make_private, remove_tree
from aemesh.host.jobtree import marked
from aemesh.host.processes import all_processes, descendants, kill, kill_all
from aemesh.host.processname import ProcessName
from aemesh.host.statedir import state_root
from aemesh.host.wholefile import locked, write_whole
from aemesh.model.view import ClientJobView

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aemesh.host.processes import Process

# Which job a process belongs to; the value is drawn, for numbers are per folder.
MARKER = "AEMESH_DETACHED"
_JOB, _ENDED, _LAST, _LOCK = "job.json", "ended.json", "last", "lock"
_RECORD_BYTES = 1024 * 1024  # a command line at most, and the kernel's bound on that
_ROUNDS = 20
_EVERY = 0.1


class Record(msgspec.Struct, frozen=True):
    """What ``job.json`` says."""

    script: str
    args: tuple[str, ...]
    group: str | None
    cwd: str
    started_at: float
    marker: str
    host: str
    boot: str
    pid: int
    ticks: int

    @property
    def supervisor(self) -> ProcessName:
        """The process that sees the job out."""
        return ProcessName(self.host, self.boot, self.pid, self.ticks)


class Ended(msgspec.Struct, frozen=True):
    """What ``ended.json`` says; a code of None: it was found lost."""

    code: int | None
    at: float


class ClientJob:
    """One script, by its folder."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record

    @property
    def id(self) -> str:
        """Its number, as it is typed."""
        return self.folder.name

    def view(self) -> ClientJobView:
        """Return what it is now."""
        record, ended = self.record, self.ended()
        running = record.supervisor.running() if ended is None else False
        if running is False:
            ended = self.ended() or self._lost()  # it may have ended since we looked
        state = {True: "running", None: "elsewhere"}.get(running) or _state(ended)
        code = ended.code if ended else None
        ended_at = ended.at if ended else None
        return ClientJobView(
            id=self.id,
            state=state,
            code=code,
            script=record.script,
            args=record.args,
            group=record.group,
            host=record.host,
            cwd=record.cwd,
            pid=record.pid,
            started_at=record.started_at,
            ended_at=ended_at,
            age_after=max(0.0, (ended_at or time.time()) - record.started_at),
            folder=str(self.folder),
        )

    def _lost(self) -> Ended:
        """End what a killed supervisor left, and note that nobody saw the end."""
        self.end_leftovers()
        return self.mark_ended(None)

    def ended(self) -> Ended | None:
        """Return how it ended, None while it has not."""
        return _read(self.folder / _ENDED, Ended)

    def mark_ended(self, code: int | None) -> Ended:
        """Write down how it ended."""
        ended = Ended(code, time.time())
        write_whole(self.folder / _ENDED, msgspec.json.encode(ended))
        return ended

    def exit_code(self) -> int:
        """Return the exit code of one that has ended, or raise `JobLostError`."""
        view = self.view()
        if view.code is None:
            raise JobLostError(self.id, view.script, view.host)
        return view.code

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Call `meanwhile` ever again until the supervisor is gone, and once more."""
        with _handle(self.record.supervisor) as gone:
            while gone is not None and not select.select([gone], [], [], _EVERY)[0]:
                meanwhile()
        meanwhile()

    def end(self, *, term_after: float) -> None:
        """Ask it to end, and end its whole tree after `term_after` seconds."""
        supervisor = self.record.supervisor
        with _handle(supervisor) as gone:
            if gone is None:
                return
            signal.pidfd_send_signal(gone, signal.SIGTERM)
            for _ in range(_ROUNDS):
                if select.select([gone], [], [], term_after)[0]:
                    return
                # One by one, not their group: its supervisor, which is in it, buries
                # them and writes down what came of it.
                term_after = limits.GONE_AFTER / _ROUNDS
                for process in self._tree():
                    kill(process)
            signal.pidfd_send_signal(gone, signal.SIGKILL)
            select.select([gone], [], [], limits.GONE_AFTER)
        self.view()

    def end_leftovers(self) -> None:
        """End what a killed supervisor left on this machine."""
        if self.record.supervisor.running() is None:
            return
        for _ in range(_ROUNDS):
            left = self._marked()
            if not left:
                return
            kill_all(left)
            select.select([], [], [], limits.GONE_AFTER / _ROUNDS)

    def remove(self) -> None:
        """Remove all that is known of it."""
        remove_tree(self.folder)

    def _tree(self) -> list[Process]:
        table = all_processes()
        pids = descendants(table, [self.record.pid])
        below = {pid: table[pid] for pid in pids if table[pid].alive}
        below |= {process.pid: process for process in self._marked()}
        below.pop(self.record.pid, None)
        return list(below.values())

    def _marked(self) -> list[Process]:
        found = marked(all_processes().values(), f"{MARKER}={self.record.marker}\0")
        return [process for process in found if process.pid != os.getpid()]


class JobFolder:
    """All jobs of one state directory."""

    def __init__(self, state: str | Path | None = None) -> None:
        self.path = state_root(state) / "jobs"

    def all(self) -> list[ClientJob]:
        """Return every job, the oldest first."""
        try:
            names = sorted(
                int(path.name) for path in self.path.iterdir() if _is_id(path.name)
            )
        except FileNotFoundError:
            return []
        jobs = (self._job(str(name)) for name in names)
        return [job for job in jobs if job is not None]

    def find(self, job_id: str | None) -> ClientJob:
        """Return the job of this number, the newest for None."""
        jobs = self.all()
        wanted = [one for one in jobs if job_id in {None, one.id}]
        if not wanted and job_id is None:
            msg = "there is no job"
            raise SettingsError(msg, hint="start one: `aemesh run --detach SCRIPT`")
        if not wanted:
            kind = "job"
            raise UnknownNameError(kind, str(job_id), [one.id for one in jobs])
        return wanted[-1]

    def new(self) -> Path:
        """Make the folder of a new job; its number is of no other, ever."""
        make_private(self.path)
        with locked(self.path / _LOCK):
            try:
                last = int((self.path / _LAST).read_text())
            except (FileNotFoundError, ValueError):
                last = max((int(job.id) for job in self.all()), default=0)
            folder = self.path / str(last + 1)
            write_whole(self.path / _LAST, str(last + 1).encode())
            folder.mkdir(mode=0o700)
        return folder

    def clean(self, *, keep: int = 0) -> list[str]:
        """Remove jobs that have ended, but for the newest `keep`; return which."""
        ended = [job for job in self.all() if job.view().ended_at is not None]
        gone = ended[: max(0, len(ended) - keep)]
        for job in gone:
            job.remove()
        return [job.id for job in gone]

    def _job(self, name: str) -> ClientJob | None:
        record = _read(self.path / name / _JOB, Record)
        return None if record is None else ClientJob(self.path / name, record)


def write_record(folder: Path, record: Record) -> ClientJob:
    """Write down what a job is, and return it."""
    write_whole(folder / _JOB, msgspec.json.encode(record))
    return ClientJob(folder, record)


def _state(ended: Ended | None) -> str:
    code = ended.code if ended else None
    return {0: "done", None: "lost"}.get(code, "failed")


def _is_id(name: str) -> bool:
    return name.isdecimal() and name.isascii()


_T = TypeVar("_T", Record, Ended)


def _read(path: Path, kind: type[_T]) -> _T | None:
    """Return a record; what is damaged says nothing, and names nothing to kill."""
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_RECORD_BYTES), type=kind)
    except (OSError, msgspec.MsgspecError, ValueError):
        return None


@contextlib.contextmanager
def _handle(name: ProcessName) -> Iterator[int | None]:
    """Give a descriptor that is readable once the process is gone; None if it is."""
    try:
        fd = os.pidfd_open(name.pid)
    except OSError:
        yield None
        return
    try:
        # Looked at after it was opened: the descriptor is of this very process.
        yield fd if name.process() is not None else None
    finally:
        os.close(fd)
