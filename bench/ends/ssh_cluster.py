"""Brings `dask.distributed.SSHCluster` up and down: ``ssh_cluster.py TIMES HOST…``.

The first host is the scheduler's.  Prints, for each time, the seconds until all workers
were registered and those that it took to close, in JSON.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import sys
import time


def main() -> None:
    """Measure, in one process: what it imports counts once."""
    began = time.perf_counter()
    from dask.distributed import Client, SSHCluster  # noqa: PLC0415 - what it measures

    imported = time.perf_counter() - began
    times, hosts = int(sys.argv[1]), sys.argv[2:]
    for _ in range(times):
        began = time.perf_counter()
        cluster = SSHCluster(
            hosts,
            connect_options={"known_hosts": None, "port": 2222},
            worker_options={"nthreads": 1},
            scheduler_options={"port": 0, "dashboard": False},
            remote_python=sys.executable,
        )
        with Client(cluster) as client:
            client.wait_for_workers(len(hosts) - 1, timeout=120)
            up = time.perf_counter() - began
        began = time.perf_counter()
        cluster.close()
        closed = time.perf_counter() - began
        print(
            json.dumps({"up": up, "closed": closed, "imported": imported}), flush=True
        )


if __name__ == "__main__":
    main()
