"""A group of eight, and its move to another: ours, and what others have for it."""

# It prints what went wrong with a peer.
# ruff: noqa: T201

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec

import trio

from aemesh.testing.lab import Host, LabError, open_lab
from bench import join, warm
from bench.sshd import SSHD, open_sshd
from bench.table import Measured, Row
from bench.watched import Watched, open_watched

_GROUP = 8
_ENDS = "/mnt/aemesh/checkout/bench/ends"
_WITHIN = 180.0
_RAY = ("-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1")
_RAY += ("--disable-usage-stats", "--object-store-memory=100000000")
_RAY_ENV = {"RAY_DISABLE_IMPORT_WARNING": "1"}
_RAY_IS_UP = "Ray runtime started"
_READY = f"group of {_GROUP} ready, agents wait, from the master's start"
_MOVED = f"{_GROUP} workers move to another group"


async def peers(times: int) -> list[Row]:
    """Bring a group of eight up, in turns with each peer that is installed."""
    took: dict[str, list[float]] = {}
    ways: dict[str, Callable[[Host, Sequence[Host]], Awaitable[float]]] = {
        "ours": lambda head, hosts: join.form_group(head, list(hosts)),
        "SSHCluster": ssh_cluster,
        "ipyparallel over ssh": ipp_cluster,
        "ray start": ray_cluster,
    }
    needs = {"SSHCluster": "asyncssh", "ipyparallel over ssh": "ipyparallel"}
    needs["ray start"] = "ray"
    missing = [name for name, module in needs.items() if find_spec(module) is None]
    if SSHD is None:
        missing += ["SSHCluster", "ipyparallel over ssh"]
    failed = dict.fromkeys(missing, "is not installed")
    async with open_office() as (head, hosts):
        for _ in range(times):
            for name in [one for one in ways if one not in failed]:
                try:
                    took.setdefault(name, []).append(await ways[name](head, hosts))
                except* (RuntimeError, LabError) as error:
                    if name == "ours":
                        raise
                    print(f"{name}: {_first_of(error)}", file=sys.stderr)
                    failed[name] = "did not come up"
                for host in (head, *hosts):
                    await _clear(host)
    rows = [
        Row(_READY, _s(took["ours"]), _s(spans), name, 1.0)
        for name, spans in took.items()
        if name != "ours" and spans
    ]
    told = (f"{name} {why}" for name, why in failed.items())
    return [*rows, *(_not_there(_READY, one, took["ours"]) for one in told)]


async def moving(times: int) -> list[Row]:
    """Move eight workers, against a cluster that is stopped and one that is started."""
    async with open_office() as (head, hosts):
        ours = await warm.moves(head, hosts, times=times)
        for host in (head, *hosts):
            await _clear(host)
        if SSHD is None or find_spec("asyncssh") is None:
            return [_not_there(_MOVED, "SSHCluster is not installed", ours)]
        theirs = await _ssh_clusters(head, hosts, times=times + 1)
    # From the close of one to the last worker of the next; both in one process.
    spans = [one["closed"] + other["up"] for one, other in itertools.pairwise(theirs)]
    what = "SSHCluster closed and started"
    return [Row(_MOVED, _s(ours), _s(spans), what, 1.0)]


@asynccontextmanager
async def open_office() -> AsyncIterator[tuple[Host, list[Host]]]:
    """Have a head and eight hosts."""
    names = ["head", *(f"office-{number + 1}" for number in range(_GROUP))]
    async with open_lab(names) as lab:
        await trio.sleep(2)  # IPv6 has looked for twins
        head, *hosts = lab.hosts
        yield head, hosts


async def ssh_cluster(head: Host, hosts: Sequence[Host]) -> float:
    """Return how long a script of `SSHCluster` takes to its last worker."""
    (said,) = await _ssh_clusters(head, hosts, times=1)
    return said["imported"] + said["up"]


async def _ssh_clusters(
    head: Host, hosts: Sequence[Host], *, times: int
) -> list[dict[str, float]]:
    async with open_sshd(head, (head, *hosts)):
        places = [host.ipv4 for host in (head, *hosts)]
        argv = [head.python, f"{_ENDS}/ssh_cluster.py", str(times), *places]
        done = await head.run(argv, within=times * _WITHIN)
    return [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]


async def ipp_cluster(head: Host, hosts: Sequence[Host]) -> float:
    """Return how long a script of ipyparallel takes to its last engine."""
    async with open_sshd(head, (head, *hosts)):
        argv = [head.python, f"{_ENDS}/ipp_cluster.py", head.ipv4]
        argv += [host.name for host in hosts]
        done = await head.run(argv, within=_WITHIN)
    (said,) = (line for line in done.stdout.splitlines() if line[:1] == "{")
    return float(json.loads(said)["up"])


async def ray_cluster(head: Host, hosts: Sequence[Host]) -> float:
    """Return how long ``ray start`` takes, on the head and then on all hosts.

    A few at once: all eight share these cores, and a node of Ray that is not up in its
    30 s gives up.
    """
    at_once = os.cpu_count() or 1
    address = f"{head.ipv4}:6379"
    async with AsyncExitStack() as stack:

        async def start(host: Host, *words: str) -> Watched:
            argv = (*_RAY, f"--node-ip-address={host.ipv4}", *words)
            return await stack.enter_async_context(
                open_watched(host, (host.python, *argv), env=_RAY_ENV)
            )

        began = time.monotonic()
        first = await start(head, "--head", "--port=6379", "--include-dashboard=false")
        await first.wait_line(_RAY_IS_UP, within=_WITHIN)
        script = (head.python, f"{_ENDS}/ray_nodes.py", address, str(_GROUP + 1))
        looks = await stack.enter_async_context(
            open_watched(head, script, env=_RAY_ENV)
        )
        for number in range(0, len(hosts), at_once):
            some = hosts[number : number + at_once]
            nodes = [await start(host, f"--address={address}") for host in some]
            for node in nodes:
                await node.wait_line(_RAY_IS_UP, within=_WITHIN)
        return await looks.wait_line("all there", within=_WITHIN) - began


async def _clear(host: Host) -> None:
    """Leave no process for whoever comes next."""
    host.kill_all()
    while host.processes():  # noqa: ASYNC110 - nobody tells
        await trio.sleep(0.05)


def _first_of(error: BaseException) -> BaseException:
    """Return the first error that is no group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _not_there(what: str, peer: str, ours: Sequence[float]) -> Row:
    return Row(f"{what}: {peer}", _s(ours))


def _s(values: Sequence[float]) -> Measured:
    return Measured(tuple(values), "s")
