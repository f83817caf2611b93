"""Holds each worker with a task, tells on which host it begins: ``losses.py COUNT``.

A line for each beginning: ``on HOST NUMBER``.
"""

# ruff: noqa: T201

from __future__ import annotations

import sys
import time

from dask.distributed import Client, get_worker


def hold(number: int) -> None:
    """Say where we are, and stay."""
    import socket  # noqa: PLC0415 - it runs elsewhere
    import time  # noqa: PLC0415

    get_worker().log_event("held", (number, socket.gethostname()))
    time.sleep(3600)  # noqa: TID251 - a worker's thread


def told(event: tuple[float, tuple[int, str]]) -> None:
    """Print one beginning."""
    number, host = event[1]
    print(f"on {host} {number}", flush=True)


count = int(sys.argv[1])
with Client() as client:
    client.wait_for_workers(2 * count, timeout=60)
    client.subscribe_topic("held", told)
    found = client.scheduler_info(n_workers=-1)["workers"]
    hosts: dict[str, list[str]] = {}
    for address in found:
        hosts.setdefault(address.rpartition(":")[0], []).append(address)
    alone = [some[0] for some in hosts.values() if len(some) == 1]
    held = [
        client.submit(hold, number, workers=[address], allow_other_workers=True)
        for number, address in enumerate(alone)
    ]
    while True:
        time.sleep(1)  # noqa: TID251 - until we are killed
