"""What a group may ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aemesh import limits
from aemesh.errors import UsageError
from aemesh.master.control_wire import SetGroup
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


@pytest.mark.parametrize(
    "changed",
    [
        {"preload": ("uproot", "a.b_c")},
        {"settings": {"distributed.scheduler.worker-saturation": "inf"}},
        {"settings": {"a": ""}},
    ],
)
def test_what_its_engine_gets_is_taken(changed) -> None:
    demand = replace(Demand(), **changed)

    assert check_demand(demand) is demand


@pytest.mark.parametrize(
    "changed",
    [
        {"preload": ("-c",)},
        {"preload": ("a b",)},
        {"preload": ("a",) * (limits.PRELOADS + 1)},
        {"settings": {"": "1"}},
        {"settings": {"a b": "1"}},
        {"settings": {"a": "x\ny"}},
        {"settings": {"a": "x" * (limits.ENGINE_SETTING_LENGTH + 1)}},
        {"settings": {f"a{n}": "1" for n in range(limits.ENGINE_SETTINGS + 1)}},
    ],
)
def test_what_its_engine_cannot_get_is_refused(changed) -> None:
    with pytest.raises(UsageError):
        check_demand(replace(Demand(), **changed))


def test_settings_are_added_to_those_that_are_there_and_taken_back_one_by_one() -> None:
    demand = Demand(settings={"a": "1", "b": "2"})
    change = SetGroup(settings={"b": None, "c": "3"})

    assert change.on(demand) == Demand(settings={"a": "1", "c": "3"})
    assert SetGroup(min=0).on(demand) == replace(demand, min=0)
