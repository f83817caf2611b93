"""A client of Dask that measures: ``rates.py TASKS BYTES``, its address in variables.

Prints the seconds for a thousand empty tasks, and for a GiB from one worker to another,
in JSON.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import sys
import time
from statistics import median

from dask.distributed import Client, wait

# Times in one run: what else the machine does comes in bursts.
_AGAIN = 3


def empty(number: int) -> int:
    """Do nothing."""
    return number


def main() -> None:
    """Measure some times, when both workers have done something."""
    tasks, size = int(sys.argv[1]), int(sys.argv[2])
    with Client() as client:
        client.wait_for_workers(2, timeout=60)
        one, other = sorted(client.scheduler_info(n_workers=-1)["workers"])[:2]
        wait(client.map(empty, range(200), pure=False))
        move(client, one, other, 1 << 20)

        took = median(work(client, tasks) for _ in range(_AGAIN))
        moved = median(move(client, one, other, size) for _ in range(_AGAIN))
    print(json.dumps({"tasks": took * 1000 / tasks, "bytes": moved * 2**30 / size}))


def work(client: Client, tasks: int) -> float:
    """Return how long so many empty tasks take."""
    began = time.perf_counter()
    wait(client.map(empty, range(tasks), pure=False))
    return time.perf_counter() - began


def move(client: Client, one: str, other: str, size: int) -> float:
    """Return how long so many bytes take from one worker to the other."""
    made = client.submit(bytes, size, workers=[one], pure=False)
    wait(made)
    began = time.perf_counter()
    sent = client.submit(len, made, workers=[other], pure=False)
    assert sent.result() == size
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
