"""An office in the lab: aemesh started by hand on real hosts, and the analysis on it.

Nothing here waits by sleeping: what happens is read from ``aemesh events --follow
--json``, how far the analysis is from its own progress line, and what an agent says
from its log.

    async with open_office(["office-1", "office-2"]) as office:
        events = await office.open_group("A")
        analysis = await office.analyse("A", muons)
        await analysis.wait_share(0.3)
        result = await analysis.wait()
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from aemesh.tasks.nursery import open_crew
from aemesh.testing.lab import Host, Lab, LabError, open_lab, wait_for
from aemesh.testing.lab_needs import can_build

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

LAB = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not can_build(), reason="run beneath `python -m aemesh.testing.lab --`"
    ),
]

EXAMPLES = "/mnt/aemesh/checkout/examples"  # as hosts see it

# Some seconds of work for two cores that do nothing else, in 12 tasks: there is a
# middle.
SCALES = 132

# A machine that does something else at the same time: none of these is a bound on
# the product, which the tests assert in their own words.
UP_WITHIN = 40.0
DONE_WITHIN = 120.0
ENDED_WITHIN = 45.0
SAID_WITHIN = 15.0

# What was measured on the way, for the terminal summary.
TIMES: list[str] = []

_PROGRESS = re.compile(rb"(\d+) of (\d+) tasks, (\d+) workers")

# Makes its standard input the terminal of its session, as a terminal window does.
ON_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(slots=True)
class Agent:
    """A worker or a master that somebody started on a host."""

    host: Host
    process: trio.Process
    log: Path
    terminal: Terminal | None = None

    @property
    def pid(self) -> int:
        """The process that does the work; the one started is its warden."""
        (child,) = psutil.Process(self.process.pid).children()
        return int(child.pid)

    @property
    def said(self) -> str:
        """All that it said so far."""
        if self.terminal is not None:
            return self.terminal.text
        return self.log.read_text(errors="replace")

    async def wait_said(
        self, pattern: str, *, within: float = SAID_WITHIN, times: int = 1
    ) -> re.Match[str]:
        """Wait until it has said something that matches, so many times."""

        def look() -> re.Match[str] | None:
            found = list(re.finditer(pattern, self.said))
            return found[times - 1] if len(found) >= times else None

        what = f"{pattern!r} from {self.host.name}, but: {self.said}"
        try:
            found = await wait_for(look, within=within, what=what)
        except LabError as error:
            msg = f"{pattern!r} was not said on {self.host.name} in {within:g} s"
            raise LabError(msg, why=self.said[-2000:]) from error
        assert found is not None
        return found

    async def end(self, number: int = signal.SIGINT) -> int:
        """Send a signal to the process that was started; return its exit code."""
        if self.process.returncode is None:
            os.kill(self.process.pid, number)
        return await self.wait()

    async def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        with trio.move_on_after(ENDED_WITHIN):
            return await self.process.wait()
        msg = f"what runs on {self.host.name} did not end in {ENDED_WITHIN:g} s"
        raise LabError(msg, why=self.said[-2000:])


class Terminal:
    """Our side of a pseudo-terminal; what is said there is read all the time."""

    def __init__(self) -> None:
        ours, self.theirs = os.openpty()
        self._stream = trio.lowlevel.FdStream(ours)
        self._said = b""

    @property
    def text(self) -> str:
        """All that was said there, and typed."""
        return self._said.decode(errors="replace").replace("\r\n", "\n")

    @property
    def raw(self) -> bytes:
        """The same, byte for byte."""
        return self._said

    async def type(self, text: str) -> None:
        """Type at the keyboard."""
        await self._stream.send_all(text.encode())

    async def run(self) -> None:
        """Read until nobody holds the other side any more."""
        async with self._stream:
            while True:
                try:
                    data = await self._stream.receive_some()
                except trio.BrokenResourceError:  # EIO: they are gone
                    return
                if not data:
                    return
                self._said += bytes(data)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the master's history, and when we read it (monotonic)."""

    number: int
    at: float
    kind: str
    text: str
    worker: str | None
    group: str | None
    read_at: float


class Events:
    """The history of a master, as ``aemesh events --follow --json`` tells it."""

    def __init__(self, process: trio.Process) -> None:
        self.seen: list[Event] = []
        self._process = process
        self._news = trio.Event()
        self._ended = False

    def __repr__(self) -> str:
        return "\n".join(f"{e.number} {e.at:.3f} {e.kind} {e.text}" for e in self.seen)

    @property
    def last(self) -> int:
        """The number of the latest event."""
        return self.seen[-1].number if self.seen else 0

    async def run(self) -> None:
        """Read until the master has ended."""
        assert self._process.stdout is not None
        rest = b""
        async for data in self._process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            now = time.monotonic()
            for line in lines:
                self.seen.append(Event(**json.loads(line), read_at=now))
            self._news.set()
            self._news = trio.Event()
        self._ended = True
        self._news.set()

    def find(
        self, kind: str, *, after: int = 0, worker: str = "", group: str = ""
    ) -> list[Event]:
        """Return the events of this kind so far, of this worker and group if given."""
        return [
            one
            for one in self.seen
            if one.kind == kind
            and one.number > after
            and (worker in ("", one.worker) or (not one.worker and worker in one.text))
            and group in ("", one.group)
        ]

    async def wait(
        self,
        kind: str,
        *,
        after: int = 0,
        worker: str = "",
        group: str = "",
        within: float = UP_WITHIN,
    ) -> Event:
        """Wait for an event beyond number ``after``; it may have come already."""
        with trio.move_on_after(within):
            while True:
                news = self._news
                found = self.find(kind, after=after, worker=worker, group=group)
                if found:
                    return found[0]
                if self._ended:
                    break
                await news.wait()
        msg = f"no {kind} of {worker or group or 'anybody'} came in {within:g} s"
        raise LabError(msg, why=repr(self))


class Loss:
    """How long a master takes to tell of what we are about to do to a worker.

    Made just before; the time is that of the event itself, and the clock that it was
    written by may not have been set meanwhile.
    """

    def __init__(self, events: Events, kind: str, worker: str) -> None:
        self._events = events
        self._kind = kind
        self._worker = worker
        self._after = events.last
        self._done_at = time.time()
        self._done_on_clock = time.monotonic()
        self.event: Event
        self.after = self.read_after = 0.0

    def __str__(self) -> str:
        """Tell the times in a sentence."""
        told = f"{self._kind} of {self._worker} came after {self.after:.3f} s"
        return f"{told} and was read after {self.read_after:.3f} s"

    async def wait(self) -> Loss:
        """Wait until it is told, and measure."""
        self.event = await self._events.wait(
            self._kind, worker=self._worker, after=self._after
        )
        self.after = self.event.at - self._done_at
        self.read_after = self.event.read_at - self._done_on_clock
        assert 0 <= self.after <= self.read_after, str(self)
        TIMES.append(str(self))
        return self


class Analysis:
    """``aemesh run examples/dimuon.py``, with its progress line on a terminal."""

    def __init__(
        self, host: Host, process: trio.Process, terminal: Terminal, result: Path
    ) -> None:
        self.process = process
        self._host = host
        self._terminal = terminal
        self._result = result

    @property
    def progress(self) -> tuple[int, int, int]:
        """How many tasks are done, of how many, and by how many processes."""
        found = _PROGRESS.findall(self._terminal.raw)
        done, tasks, workers = map(int, found[-1]) if found else (0, 0, 0)
        return done, tasks, workers

    @property
    def share(self) -> float:
        """The share of all tasks that is done."""
        done, tasks, _ = self.progress
        return done / tasks if tasks else 0.0

    @property
    def said(self) -> str:
        """What it said on its terminal."""
        return self._terminal.text

    async def wait_share(self, share: float) -> None:
        """Wait until so much is done; by then there must be more to do."""
        await wait_for(
            lambda: self.share >= share or self.process.returncode is not None,
            within=DONE_WITHIN,
            what=f"{share:.0%} of an analysis on {self._host.name}",
        )
        self.check_runs()

    def check_runs(self) -> None:
        """Assert that we are in the midst of it."""
        assert self.process.returncode is None, self.said
        assert self.share < 1, "it was over before it could be disturbed"

    async def wait(self) -> dict[str, Any]:
        """Wait for its end, which is a good one; return what it wrote."""
        code = -1
        with trio.move_on_after(DONE_WITHIN):
            code = await self.process.wait()
        assert code == 0, f"{code}, {self.progress}: {self.said[-3000:]}"
        result: dict[str, Any] = json.loads(self._result.read_text())
        return result


@dataclass(slots=True)
class Office:
    """The hosts, and what was started on them."""

    lab: Lab
    crew: trio.Nursery
    agents: list[Agent] = field(default_factory=list)
    events: Events | None = None

    @property
    def laptop(self) -> Host:
        """The first host: where the master and the analysis run."""
        return self.lab.hosts[0]

    def host(self, name: str) -> Host:
        """Return the host of this name."""
        return self.lab.host(name)

    async def start(
        self, name: str, *words: str, terminal: bool = False, **options: Any
    ) -> Agent:
        """Start ``aemesh …`` on a host, in the background or on a terminal."""
        host = self.host(name)
        log = self.lab.folder / f"{len(self.agents)}-{name}-{words[0]}.log"
        argv = [*host.aemesh, *words]
        if terminal:
            screen = Terminal()
            argv = [host.python, "-c", ON_TERMINAL, *argv]
            ends = dict.fromkeys(("stdin", "stdout", "stderr"), screen.theirs)
            process = await host.start(argv, **ends, **options)
            os.close(screen.theirs)
            self.crew.start_soon(screen.run)
            agent = Agent(host, process, log, screen)
        else:
            with log.open("wb") as file:
                ends = {"stdout": file, "stderr": file}
                process = await host.start(argv, **ends, **options)
            agent = Agent(host, process, log)
        self.agents.append(agent)
        return agent

    async def worker(self, name: str, *words: str, **options: Any) -> Agent:
        """Start a worker of one core that takes the first master."""
        words = words or ("--accept-first-master",)
        return await self.start(name, "worker", "--cores", "1", *words, **options)

    async def master(
        self, *groups: str, name: str = "", kept: str = "5m", more: Sequence[str] = ()
    ) -> Agent:
        """Start a master that takes every worker; follow its events."""
        words = [*more, *(word for group in groups for word in ("--group", group))]
        agent = await self.start(
            name or self.laptop.name, "master", *words, "--accept-new", "--kept", kept
        )
        await agent.wait_said("is master of", within=UP_WITHIN)
        self.events = await self.follow(name=agent.host.name)
        return agent

    async def follow(self, *, name: str = "") -> Events:
        """Read the events of the master on a host from the first one on."""
        host = self.host(name) if name else self.laptop
        argv = [*host.aemesh, "events", "--follow", "--json"]
        process = await host.start(argv, stdout=subprocess.PIPE)
        events = Events(process)
        self.crew.start_soon(events.run)
        return events

    async def joined(self, *names: str, after: int = 0) -> None:
        """Wait until all these workers have come into a group."""
        assert self.events is not None
        for name in names:
            await self.events.wait("worker.joined", worker=name, after=after)

    async def ask(self, *words: str, name: str = "") -> list[Any]:
        """Return what ``aemesh … --json`` prints on a host."""
        host = self.host(name) if name else self.laptop
        done = await host.run([*host.aemesh, *words, "--json"])
        return [json.loads(line) for line in done.stdout.splitlines()]

    async def view(self, worker: str, *, name: str = "") -> dict[str, Any]:
        """Return the worker of this name as ``aemesh workers`` shows it."""
        shown = await self.ask("workers", name=name)
        (found,) = (one for one in shown if one["name"] == worker)
        return dict(found)

    async def analyse(
        self, group: str | None, muons: Path, *, scales: int = SCALES, name: str = ""
    ) -> Analysis:
        """Start the analysis on a group, or on one host alone."""
        host = self.host(name) if name else self.laptop
        data = give(host, muons)
        result = host.home / f"{group or 'alone'}.json"
        result.unlink(missing_ok=True)
        words = ["--group", group] if group else []
        argv = [*host.aemesh, "run", *words, f"{EXAMPLES}/dimuon.py", *data]
        argv += ["--scales", str(scales), "--json", str(result)]
        argv += ["--out", str(result.with_suffix(".png"))]
        screen = Terminal()
        process = await host.start(argv, stdout=screen.theirs, stderr=screen.theirs)
        os.close(screen.theirs)
        self.crew.start_soon(screen.run)
        return Analysis(host, process, screen, result)


@asynccontextmanager
async def open_office(names: Sequence[str]) -> AsyncIterator[Office]:
    """Build a lab of these hosts, the laptop first; logs are shown if it goes wrong."""
    async with open_lab(names) as lab, open_crew() as crew:
        office = Office(lab, crew)
        try:
            yield office
        except BaseException:
            _show_logs(office)
            raise
        for host in lab:
            host.kill_all()  # what reads from them ends by itself
        crew.cancel_scope.cancel()


def state(host: Host, role: str = "") -> Path:
    """Return the state directory on a host, or the part of one role."""
    return host.home / ".local/state/aemesh" / role


def give(host: Host, muons: Path) -> list[str]:
    """Copy the data to a host's home; return the files as the host names them."""
    place = host.home / "data"
    if not place.exists():
        place.mkdir()
        place.chmod(0o755)
        for path in muons.iterdir():
            shutil.copyfile(path, place / path.name)
            (place / path.name).chmod(0o644)
    return sorted(str(path) for path in place.iterdir())


async def engine_pids(host: Host) -> list[int]:
    """Return the processes of a host that listen for Dask."""
    found = await host.listeners()
    return [one.pid for one in found if (one.protocol, one.address) == _tcp_at(host)]


def named(host: Host, word: str) -> list[int]:
    """Return the processes of a host that have this word in their command line."""
    found = []
    for pid in sorted(host.processes()):
        try:
            words = psutil.Process(pid).cmdline()
        except psutil.Error:
            continue
        if any(word == one or one.endswith(f"/{word}") for one in words):
            found.append(pid)
    return found


def _tcp_at(host: Host) -> tuple[str, str]:
    # An agent listens everywhere, an engine on the one address that was chosen.
    return ("tcp", host.ipv4)


def gone(host: Host) -> Callable[[], bool]:
    """Return what tells whether nothing runs on a host any more."""
    return lambda: not host.processes()


def _show_logs(office: Office) -> None:
    for agent in office.agents:
        sys.stderr.write(f"--- {agent.log.name}\n{agent.said[-4000:]}\n")
    if office.events is not None:
        sys.stderr.write(f"--- events\n{office.events!r}\n")
