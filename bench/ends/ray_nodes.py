"""Waits until a Ray cluster has so many nodes: ``ray_nodes.py ADDRESS COUNT``."""

# ruff: noqa: T201

from __future__ import annotations

import sys
import time

import ray

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
print("connected", flush=True)
while sum(one["Alive"] for one in ray.nodes()) < int(sys.argv[2]):
    time.sleep(0.01)  # noqa: TID251 - Ray has no call that waits for this
print("all there", flush=True)
