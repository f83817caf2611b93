"""How long it takes to share a thousand workers among fifty groups."""

from __future__ import annotations

import random
import time
from dataclasses import replace

from aemesh.model.group import Demand
from aemesh.model.names import GroupName
from aemesh.policy.grouping import Candidate, allocate
from bench.table import Measured, Row

_WORKERS, _GROUPS = 1000, 50
_BUDGET = 50.0  # ms


def sharing(times: int) -> list[Row]:
    """Share workers that have all just come, and those of a group that is gone."""
    fresh, again = [], []
    for seed in range(times):
        workers, groups = _scene(random.Random(seed))  # noqa: S311 - the same each time
        began = time.perf_counter()
        plan = allocate(workers, groups)
        fresh.append(1000 * (time.perf_counter() - began))
        serving = [
            replace(one, group=plan.placements[one.key].group) for one in workers
        ]
        del groups[min(groups)]
        began = time.perf_counter()
        allocate(serving, groups)
        again.append(1000 * (time.perf_counter() - began))
    what = f"sharing {_WORKERS} workers and {_GROUPS} groups"
    return [
        Row(f"{what}: all are new", Measured(tuple(fresh), "ms"), limit=_BUDGET),
        Row(f"{what}: a group ends", Measured(tuple(again), "ms"), limit=_BUDGET),
    ]


def _scene(chance: random.Random) -> tuple[list[Candidate], dict[GroupName, Demand]]:
    """Every worker differs: each may serve half of the groups, by chance."""
    groups = {
        GroupName(f"group-{number:02}"): Demand(
            min=chance.randrange(12),
            max=chance.choice([None, 15, 30, 60]),
            weight=chance.randrange(1, 10),
        )
        for number in range(_GROUPS)
    }
    workers = [
        Candidate(
            key=f"{chance.random():.12f}",
            allowed=frozenset(name for name in groups if chance.random() < 0.5),
        )
        for _ in range(_WORKERS)
    ]
    return workers, groups
