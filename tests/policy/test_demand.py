"""What a group may ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aemesh.errors import UsageError
from aemesh.model.group import Demand
from aemesh.policy.demand import check_demand


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"min": 0, "max": 0},  # takes nobody, for now
        {"min": 3, "max": 3},
        {"weight": 1000, "wait_after": 0.0},
        {"require": "cores>=4"},
    ],
)
def test_a_demand_that_makes_sense_is_taken(changed) -> None:
    demand = replace(Demand(), **changed)

    assert check_demand(demand) is demand


@pytest.mark.parametrize(
    "changed",
    [
        {"min": -1},
        {"min": 100_001},
        {"min": 2, "max": 1},
        {"max": -1},
        {"weight": 0},
        {"weight": 1001},
        {"wait_after": -1.0},
        {"wait_after": 1e9},
        {"wait_after": float("nan")},
        {"require": "cores>="},
    ],
)
def test_a_demand_that_makes_none_is_refused(changed) -> None:
    with pytest.raises(UsageError):
        check_demand(replace(Demand(), **changed))
