"""Brings an ipyparallel cluster up over ssh, once: ``ipp_cluster.py HERE HOST…``.

Prints the seconds until all engines were registered, in JSON.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import os
import sys
import time

began = time.perf_counter()

import ipyparallel  # noqa: E402 - what it measures
from traitlets.config import Config  # noqa: E402


def main() -> None:
    """Measure from before the imports."""
    here, *hosts = sys.argv[1:]
    config = Config()
    config.SSHLauncher.remote_python = sys.executable
    config.SSHEngineSetLauncher.engines = dict.fromkeys(hosts, 1)
    cluster = ipyparallel.Cluster(
        engines="ssh",
        controller_ip=here,
        controller_location=here,
        n=len(hosts),
        config=config,
    )
    cluster.start_cluster_sync()
    client = cluster.connect_client_sync()
    client.wait_for_engines(len(hosts), timeout=120)
    print(json.dumps({"up": time.perf_counter() - began}), flush=True)
    os._exit(0)  # how it ends is not measured, and takes its time


if __name__ == "__main__":
    main()
