"""What a linked agent that has nothing to do costs: memory, and processor time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import trio

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process costs: MB of memory, and its share of a core."""

    rss: float
    pss: float
    share: float  # percent


@dataclass(frozen=True, slots=True)
class Family:
    """The processes of one ``aemesh worker``, and what each costs."""

    warden: Cost
    agent: Cost
    engine: tuple[Cost, ...]  # the spare and, when it serves, its Dask workers


async def idle_costs(warden: int, *, seconds: float) -> Family:
    """Watch a worker for a while; `warden` is the process that was started."""
    (agent,) = children(warden)
    engines = descendants(agent)
    before = {pid: used(pid) for pid in (warden, agent, *engines)}
    await trio.sleep(seconds)
    costs = {pid: _cost(pid, ran, seconds) for pid, ran in before.items()}
    return Family(costs[warden], costs[agent], tuple(costs[pid] for pid in engines))


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(c) for task in tasks for c in (task / "children").read_text().split()]


def descendants(pid: int) -> list[int]:
    """Return all below a process."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def used(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    # schedstat counts nanoseconds of each thread; stat only ticks of 10 ms.
    tasks = Path(f"/proc/{pid}/task").iterdir()
    try:
        return sum(int((t / "schedstat").read_text().split()[0]) for t in tasks) / 1e9
    except FileNotFoundError:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS


def _cost(pid: int, before: float, seconds: float) -> Cost:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    size = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines[1:]}
    return Cost(size["Rss:"], size["Pss:"], 100 * (used(pid) - before) / seconds)
