"""What this machine has to offer: what we may use of it, not what is built in."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from aemesh.model.machine import Facts

_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def find_facts() -> Facts:
    """Return what this process may use: batch slots and containers give less."""
    return Facts(
        cores=_cores(),
        memory=_memory(),
        python=platform.python_version(),
        system=f"{sys.platform}-{platform.machine()}",
    )


def _cores() -> int:
    cores = len(os.sched_getaffinity(0))
    for line in _cgroup_values("cpu.max"):  # "max 100000", or "150000 100000"
        quota, _, period = line.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def _memory() -> int:
    limits = [int(v) for v in _cgroup_values("memory.max") if v.isdigit()]
    return min([_built_in_memory(), *limits])


def _built_in_memory() -> int:
    # Read here, not with psutil: its import takes longer than all of this file.
    first = _MEMINFO.read_text(encoding="ascii").partition("\n")[0]
    return int(first.split()[1]) * 1024  # "MemTotal:       24594496 kB"


def _cgroup_values(name: str) -> list[str]:
    """Return the limits of this name on our cgroup and on all above it."""
    values = []
    for folder in _our_cgroups():
        try:
            values.append((folder / name).read_text(encoding="ascii").strip())
        except OSError:
            continue
    return values


def _our_cgroups() -> list[Path]:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        if line.startswith("0::/"):  # the unified hierarchy, cgroup v2
            ours = _CGROUPS / line.removeprefix("0::/")
            return [ours, *(p for p in ours.parents if p.is_relative_to(_CGROUPS))]
    return []
