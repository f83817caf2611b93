"""A worker is lost: how long until its task runs elsewhere, and with plain Dask."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio

from aemesh.testing.lab import Host, open_lab
from bench import join
from bench.rates import by_hand
from bench.table import Measured, Row
from bench.watched import Watched, open_watched

_SCRIPT = "/mnt/aemesh/checkout/bench/ends/losses.py"
_SETTLED_AFTER = 1.0  # aemesh starts another process for one that was killed
_WITHIN = 150.0  # plain Dask notices a cut after three quarters of a minute


async def losses(times: int) -> list[Row]:
    """Lose so many workers, each with a task; others wait to take it."""
    took: dict[tuple[str, str], list[float]] = {}
    for whose in ("ours", "plain"):
        for how in ("killed", "cut"):
            took[how, whose] = await lose(times, how=how, ours=whose == "ours")
    told = {"killed": "kill -9 of a worker's process", "cut": "a worker's cable is cut"}
    return [
        Row(
            f"{told[how]}, until its task runs elsewhere",
            Measured(tuple(took[how, "ours"]), "s"),
            Measured(tuple(took[how, "plain"]), "s"),
            "plain Dask",
            limit,
        )
        for how, limit in (("killed", None), ("cut", 1.0))
    ]


async def lose(count: int, *, how: str, ours: bool) -> list[float]:
    """Return how long each task took to its next beginning."""
    names = ["head", "spare", *(f"office-{n + 1}" for n in range(count))]
    async with open_lab(names) as lab, AsyncExitStack() as stack:
        await trio.sleep(2)  # IPv6 has looked for twins
        head, spare, *hosts = lab.hosts
        opening = open_ours if ours else open_plain
        argv, env = await stack.enter_async_context(opening(head, spare, hosts))
        script = (*argv, _SCRIPT, str(count))
        tasks = await stack.enter_async_context(open_watched(head, script, env=env))
        await tasks.wait_line("^on office", times=count, within=60.0)
        if how == "cut":
            began = time.monotonic()
            for host in hosts:
                await host.cut()
            return await again(tasks, [began] * count)
        began_at = []
        for number, host in enumerate(hosts):
            (pid,) = await engine_pids(host)
            await trio.sleep(_SETTLED_AFTER)
            began_at.append(time.monotonic())
            os.kill(pid, signal.SIGKILL)
            await tasks.wait_line(r"^on ", times=count + number + 1, within=_WITHIN)
        ends = [at for at, line in tasks.lines if line.startswith("on ")][count:]
        return [end - began for began, end in zip(began_at, ends, strict=True)]


async def again(tasks: Watched, began_at: Sequence[float]) -> list[float]:
    """Wait until all tasks have begun once more; return how long each took."""
    count = len(began_at)
    await tasks.wait_line(r"^on ", times=2 * count, within=_WITHIN)
    ends = [at for at, line in tasks.lines if line.startswith("on ")][count:]
    return [end - began for began, end in zip(began_at, ends, strict=True)]


@asynccontextmanager
async def open_ours(
    head: Host, spare: Host, hosts: Sequence[Host]
) -> AsyncIterator[tuple[list[str], Mapping[str, str]]]:
    """A group on aemesh, and how to run a script on it."""
    async with AsyncExitStack() as stack:
        master = await stack.enter_async_context(join.open_master(head))
        for host, cores in ((spare, len(hosts)), *((one, 1) for one in hosts)):
            words = ("worker", "--accept-first-master", "--cores", str(cores))
            await stack.enter_async_context(open_watched(host, (*host.aemesh, *words)))
        for host in (spare, *hosts):
            await master.wait_line(f"{host.name} serves {join.GROUP}", within=60.0)
        yield [*head.aemesh, "run", "--group", join.GROUP], {}


@asynccontextmanager
async def open_plain(
    head: Host, spare: Host, hosts: Sequence[Host]
) -> AsyncIterator[tuple[list[str], Mapping[str, str]]]:
    """The same with Dask's own commands, and TLS."""
    everybody = [*[spare] * len(hosts), *hosts]
    async with by_hand(head, everybody, join.DaskTls()) as env:
        yield [head.python], env


async def engine_pids(host: Host) -> list[int]:
    """Return the processes of a host that listen for Dask."""
    found = await host.listeners()
    return [
        one.pid for one in found if (one.protocol, one.address) == ("tcp", host.ipv4)
    ]
