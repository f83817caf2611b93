"""Items in a second, and what it costs to keep one: `Group.map` and its peers."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack

import trio

from aemesh.testing.lab import open_lab
from bench import join
from bench.table import Measured, Row
from bench.watched import open_watched

_SCRIPT = "/mnt/aemesh/checkout/bench/ends/runs.py"
_ITEMS, _SINGLES = 20_000, 200
_SOON = 4.0  # seconds: 5,000 items each
_WITHIN = 300.0


async def runs(times: int) -> list[Row]:
    """Measure all in turn, in one script, on two workers of one core."""
    took: dict[str, list[float]] = {}
    async with open_lab(["head", "one", "two"]) as lab:
        await trio.sleep(2)  # IPv6 has looked for twins
        head, *hosts = lab.hosts
        async with AsyncExitStack() as stack:
            ours = await stack.enter_async_context(join.open_master(head))
            for host in hosts:
                words = ("worker", "--accept-first-master", "--cores", "1")
                await stack.enter_async_context(
                    open_watched(host, (*host.aemesh, *words))
                )
                await ours.wait_line(f"{host.name} serves {join.GROUP}")
            run = [*head.aemesh, "run", "--group", join.GROUP, _SCRIPT]
            for _ in range(times):
                argv = [*run, str(_ITEMS), str(_SINGLES)]
                done = await head.run(argv, within=_WITHIN)
                for what, seconds in json.loads(done.stdout).items():
                    took.setdefault(what, []).append(seconds)
    told = f"{_ITEMS} items by Group.map"
    empty = _s(took["map"])
    return [
        Row(f"{told}, empty", empty, limit=_SOON),
        Row(f"{told}, empty", empty, _s(took["dask"]), "Dask's map"),
        Row(
            f"{told}, empty", empty, _s(took["dask inf"]), "with worker-saturation inf"
        ),
        Row(f"{told}, empty", empty, _s(took["pool"]), "ProcessPoolExecutor"),
        Row(f"{told}, 1 kB each, kept", _s(took["kept"])),
        Row(f"{told}, 1 kB each, that are kept already", _s(took["again"])),
        Row("to keep an item of 1 kB, among many", _us(kept(took))),
        Row("to keep a state of 1 kB, alone, until it counts", _us(took["single"])),
    ]


def kept(took: dict[str, list[float]]) -> list[float]:
    """Return what keeping adds to an item, and reading it back."""
    pairs = zip(took["kept"], took["map"], strict=True)
    return [(with_it - without) / _ITEMS for with_it, without in pairs]


def _s(values: list[float]) -> Measured:
    return Measured(tuple(values), "s")


def _us(values: list[float]) -> Measured:
    return Measured(tuple(1e6 * value for value in values), "µs")
