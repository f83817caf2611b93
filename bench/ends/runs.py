"""A client that maps: ``runs.py ITEMS SINGLE``, its group in variables.

Prints seconds in JSON: for so many empty items by `Group.map`, kept and not kept, by
Dask's own map, and by a pool of processes here; and for one item that is kept alone.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor

from distributed import Client

import aemesh

_FEW = 10  # Dask's own map is slow: it gets a part of the items
_VALUE = bytes(1000)


def empty(number: int) -> int:
    """Do nothing."""
    return number


def kilobyte(_number: int) -> bytes:
    """Return a value of 1 kB."""
    return _VALUE


def single(count: int) -> float:
    """Keep a state of 1 kB, one time after the other; return what one takes."""
    began = time.perf_counter()
    for _ in range(count):
        aemesh.checkpoint(_VALUE)
    return (time.perf_counter() - began) / count


def main() -> None:
    """Measure once, when both workers have done something."""
    items, singles = int(sys.argv[1]), int(sys.argv[2])
    took: dict[str, float] = {}

    def measure(name: str, results: Callable[[], Iterable[object]], of: int) -> None:
        began = time.perf_counter()
        assert sum(1 for _ in results()) == of
        took[name] = (time.perf_counter() - began) * items / of

    with aemesh.connect() as group:
        key = f"bench-{time.time_ns()}"
        list(group.map(empty, range(100)))
        measure("map", lambda: group.map(empty, range(items)), items)
        measure("kept", lambda: group.map(kilobyte, range(items), key=key), items)
        measure("again", lambda: group.map(kilobyte, range(items), key=key), items)
        (took["single"],) = group.map(single, [singles], key=f"{key}-single")
        for name in (key, f"{key}-single"):
            group.mesh.runs.drop(group.name, name)
        with group.client(set_as_default=False) as client:
            few = items // _FEW
            measure("dask", lambda: mapped(client, few), few)
            client.run_on_scheduler(saturate, float("inf"))
            measure("dask inf", lambda: mapped(client, few), few)
            client.run_on_scheduler(saturate, 1.1)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(empty, range(100)))
        measure("pool", lambda: pool.map(empty, range(items)), items)
    print(json.dumps(took))


def mapped(client: Client, count: int) -> list[object]:
    """Map by Dask's own means."""
    found: list[object] = client.gather(client.map(empty, range(count), pure=False))
    return found


def saturate(value: float, dask_scheduler: object = None) -> None:
    """Set Dask's worker-saturation in the scheduler."""
    dask_scheduler.WORKER_SATURATION = value  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
