"""The office of the soak: its hosts, its agents, and what is done to them.

A clock is set by libfaketime, which gives the agents of a host, and only them, another
time of day (the monotonic clock stays): setting a real one would set it for this
machine.  Where it is not installed, clocks are left alone, and that is said.
"""

from __future__ import annotations

import contextlib
import os
import signal
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import trio

from soak.story import Deed, Fault
from tests.lab.office import Agent, Office, engine_pids, open_office

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from aemesh.testing.lab import Host

LAPTOP = "laptop"
WORKERS = tuple(f"office-{number}" for number in range(1, 9))
GROUPS = ("A", "B", "C")

# Seen by hosts as by us: libfaketime is no part of the lab.
_LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
_LOSS = 20.0


@dataclass
class Trouble:
    """What is wrong with a host now, and since when it may be so again."""

    deeds: list[Deed] = field(default_factory=list)
    over_at: float = 0.0  # on trio's clock


class Stage:
    """All hosts, with what runs there."""

    def __init__(self, office: Office, say: Callable[[str], None]) -> None:
        self.office = office
        self.agents: dict[str, Agent] = {}
        self.trouble = {name: Trouble() for name in (LAPTOP, *WORKERS)}
        self.master_up = trio.Event()
        self.lives = 0  # of the master
        self.killed_at = float("-inf")
        self.has_clocks = bool(_LIBRARIES)
        self._say = say
        self._addresses = 100
        self._coming_back = {name: trio.Lock() for name in WORKERS}

    async def start_all(self) -> None:
        """Start the workers and the master; they meet for the first time."""
        for name in WORKERS:
            await self.start_worker(name)
        await self.start_master()

    async def start_worker(self, name: str) -> None:
        """Start a worker of one core; the first master that it met is its master."""
        words = ("worker", "--cores", "1", "--accept-first-master")
        self.agents[name] = await self._start(name, *words)

    async def start_master(self) -> None:
        """Start the master, and wait until it is ready."""
        groups = [word for group in GROUPS for word in ("--group", group)]
        agent = await self._start(LAPTOP, "master", *groups, "--accept-new")
        self.agents[LAPTOP] = agent
        await agent.wait_said("is master of", within=60)
        self.lives += 1
        self.master_up.set()

    async def do(self, deed: Deed) -> None:
        """Do what the story says, let it last, and mend it."""
        trouble = self.trouble[deed.on]
        trouble.deeds.append(deed)
        trouble.over_at = float("inf")
        try:
            await _DEEDS[deed.fault](self, deed, self.office.host(deed.on))
        finally:
            trouble.deeds.remove(deed)
            trouble.over_at = trio.current_time()

    def calm_for(self, name: str) -> float:
        """Return for how long nothing was wrong with a host; 0 while something is."""
        trouble = self.trouble[name]
        return 0.0 if trouble.deeds else trio.current_time() - trouble.over_at

    async def end_all(self) -> None:
        """End all as their owners do: politely, the master first."""
        await self._end(LAPTOP)
        async with trio.open_nursery() as nursery:
            for name in WORKERS:
                nursery.start_soon(self._end, name)

    async def _end(self, name: str) -> None:
        code = await self.agents[name].end(signal.SIGINT)
        if code:
            self._say(f"# {name} ended with {code}")

    # --- deeds ---

    async def kill_engine(self, deed: Deed, host: Host) -> None:
        """Kill one process of Dask's, if there is one."""
        del deed
        for pid in (await engine_pids(host))[:1]:
            _kill(pid)

    async def kill_agent(self, deed: Deed, host: Host) -> None:
        """Kill the process that does the work, and start it again."""
        _kill(self._agent_pid(host.name))
        await self._come_back(deed)

    async def kill_warden(self, deed: Deed, host: Host) -> None:
        """Kill the process that watches it, and start both again."""
        _kill(self.agents[host.name].process.pid)
        await self._come_back(deed)

    async def leave(self, deed: Deed, host: Host) -> None:
        """Its owner wants the machine, and then not any more."""
        await self.agents[host.name].end(signal.SIGINT)
        await self._come_back(deed)

    async def kill_master(self, deed: Deed, host: Host) -> None:
        """Kill the master in the midst of its work, and start it again."""
        self.master_up = trio.Event()
        self.killed_at = trio.current_time()
        _kill(self._agent_pid(host.name))
        await self.agents[host.name].wait()
        await trio.sleep(deed.lasts)
        await self.start_master()

    async def cut(self, deed: Deed, host: Host) -> None:
        """Pull the cable, for a while."""
        await host.cut()
        await trio.sleep(deed.lasts)
        await host.mend()

    async def sleep(self, deed: Deed, host: Host) -> None:
        """Close the lid, for a while."""
        await host.suspend()
        await trio.sleep(deed.lasts)
        await host.resume()

    async def loss(self, deed: Deed, host: Host) -> None:
        """Lose a fifth of all frames, for a while."""
        await host.loss(_LOSS)
        await trio.sleep(deed.lasts)
        await host.loss(0)

    async def address(self, deed: Deed, host: Host) -> None:
        """Give it an address that nobody had."""
        del deed
        self._addresses = 100 + (self._addresses - 99) % 150
        await host.readdress(self._addresses)

    async def clock(self, deed: Deed, host: Host) -> None:
        """Set its time of day, and set it right again after a while."""
        self._set_clock(host, deed.by)
        await trio.sleep(deed.lasts)
        self._set_clock(host, 0.0)

    async def move(self, deed: Deed, host: Host) -> None:
        """Move the worker to another group, if that can be done now."""
        laptop = self.office.laptop
        argv = [*laptop.aemesh, "group", "move", host.name, deed.group]
        done = await laptop.run(argv, check=False, within=120)
        if done.returncode:
            self._say(f"# not moved: {done.stderr.strip().splitlines()[:1]}")

    # --- inside ---

    async def _come_back(self, deed: Deed) -> None:
        """Start a worker again that has ended, unless another deed did."""
        ended = self.agents[deed.on]
        await ended.wait()
        await trio.sleep(deed.lasts)
        async with self._coming_back[deed.on]:
            if self.agents[deed.on] is ended:
                await self.start_worker(deed.on)

    async def _start(self, name: str, *words: str) -> Agent:
        host = self.office.host(name)
        argv = [*host.aemesh, *words]
        if self.has_clocks:
            self._set_clock(host, 0.0)
            # By `env`: what enters the host as root must not open the library's
            # semaphore, which the host's user then could not.
            argv = ["env", *_preload(host), *argv]
        log = self.office.lab.folder / f"{len(self.office.agents)}-{name}.log"
        with log.open("wb") as file:
            process = await host.start(argv, stdout=file, stderr=file)
        agent = Agent(host, process, log)
        self.office.agents.append(agent)
        return agent

    def _agent_pid(self, name: str) -> int:
        try:
            return self.agents[name].pid
        except (psutil.Error, ValueError):  # it forks just now, or ends
            return self.agents[name].process.pid

    def _set_clock(self, host: Host, by: float) -> None:
        if self.has_clocks:
            file = _clock_file(host)
            file.write_text(f"{by:+.0f}\n")
            file.chmod(0o644)


@asynccontextmanager
async def open_stage(say: Callable[[str], None]) -> AsyncIterator[Stage]:
    """Build the office; nothing runs there yet, and nothing does afterwards."""
    async with open_office([LAPTOP, *WORKERS]) as office:
        yield Stage(office, say)


def _preload(host: Host) -> list[str]:
    return [
        f"LD_PRELOAD={_LIBRARIES[0]}",
        f"FAKETIME_TIMESTAMP_FILE={_clock_file(host)}",
        "FAKETIME_DONT_FAKE_MONOTONIC=1",
        "FAKETIME_CACHE_DURATION=1",
        "NO_FAKE_STAT=1",
    ]


def _clock_file(host: Host) -> Path:
    return host.home / "clock"


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it went by itself
        os.kill(pid, signal.SIGKILL)


_DEEDS = {
    Fault.KILL_ENGINE: Stage.kill_engine,
    Fault.KILL_AGENT: Stage.kill_agent,
    Fault.KILL_WARDEN: Stage.kill_warden,
    Fault.KILL_MASTER: Stage.kill_master,
    Fault.LEAVE: Stage.leave,
    Fault.CUT: Stage.cut,
    Fault.SLEEP: Stage.sleep,
    Fault.LOSS: Stage.loss,
    Fault.ADDRESS: Stage.address,
    Fault.CLOCK: Stage.clock,
    Fault.MOVE: Stage.move,
}
