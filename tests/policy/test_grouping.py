"""Which group each worker serves: the rule, by cases and against all other sharings."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aemesh.model.group import Demand
from aemesh.policy.grouping import Candidate, Plan, allocate, may_serve

NAMES = ["A", "B", "C"]


def worker(
    key: str, allowed: str = "AB", group: str | None = None, **more
) -> Candidate:
    return Candidate(key=key, allowed=frozenset(allowed), group=group, **more)


def counts(plan: Plan) -> Counter[str | None]:
    return Counter(placement.group for placement in plan.placements.values())


def followed(workers: list[Candidate], plan: Plan) -> list[Candidate]:
    """The same workers, when all have done what the plan says."""
    return [
        replace(one, group=to, last=to or one.last)
        for one in workers
        for to in [plan.placements[one.key].group]
    ]


# --- by cases ----------------------------------------------------------------


def test_without_groups_or_workers_nothing_happens():
    assert allocate([], {"A": Demand(min=2)}).missing == {"A": 2}
    (free,) = allocate([worker("w")], {}).placements.values()
    assert (free.group, free.why) == (None, "there is no group")


@pytest.mark.parametrize(
    ("workers", "groups", "expected"),
    [
        # By weight; workers count.
        (4, {"A": Demand(), "B": Demand()}, {"A": 2, "B": 2}),
        (4, {"A": Demand(weight=3), "B": Demand()}, {"A": 3, "B": 1}),
        (8, {"A": Demand(weight=3), "B": Demand()}, {"A": 6, "B": 2}),
        (5, {"A": Demand(), "B": Demand()}, {"A": 3, "B": 2}),
        # Min before weight.
        (4, {"A": Demand(weight=9), "B": Demand(min=3)}, {"A": 1, "B": 3}),
        (2, {"A": Demand(weight=1000), "B": Demand()}, {"A": 1, "B": 1}),
        (3, {"A": Demand(min=0, weight=9), "B": Demand(min=0)}, {"A": 3}),
        # A group that cannot come to its min takes nothing from one that can.
        (3, {"A": Demand(min=4, weight=9), "B": Demand(min=2)}, {"A": 1, "B": 2}),
        (3, {"A": Demand(min=2), "B": Demand(min=2)}, {"A": 2, "B": 1}),
        # Weight before max, and what one may not have another gets.
        (5, {"A": Demand(weight=9, max=2), "B": Demand()}, {"A": 2, "B": 3}),
        (5, {"A": Demand(max=2), "B": Demand(max=1)}, {"A": 2, "B": 1, None: 2}),
        (2, {"A": Demand(min=0, max=0)}, {None: 2}),
    ],
)
def test_new_workers_are_shared_as_the_table_says(workers, groups, expected):
    """Beyond the mins, by weight."""
    plan = allocate([worker(f"w{n}") for n in range(workers)], groups)

    assert counts(plan) == expected


def test_who_can_serve_only_one_group_leaves_it_the_others():
    """A sum would do with one worker too few; the flow finds the exchange."""
    groups = {"A": Demand(min=1), "B": Demand(min=1), "C": Demand(min=1)}
    workers = [worker("w1", "AB", "A"), worker("w2", "BC", "B"), worker("w3", "A")]

    plan = allocate(workers, groups)

    assert {key: one.group for key, one in plan.placements.items()} == {
        "w1": "B",
        "w2": "C",
        "w3": "A",
    }
    assert plan.missing == {}


def test_a_worker_comes_back_to_the_group_that_it_served():
    plan = allocate(
        [worker("w1", last="B"), worker("w2", last="A")], {"A": Demand(), "B": Demand()}
    )

    assert plan.placements["w1"].group == "B"
    assert plan.placements["w2"].group == "A"


def test_who_was_moved_by_hand_stays_there():
    groups = {"A": Demand(), "B": Demand()}
    workers = [worker(f"w{n}", group="A", pinned="A") for n in range(4)]

    assert counts(allocate(workers, groups)) == {"A": 4}
    assert counts(allocate(workers, groups | {"A": Demand(max=3)})) == {"A": 3, None: 1}
    # A pin on a group that is gone, or that may not have it any more, is none.
    assert counts(allocate(workers, {"B": Demand()})) == {"B": 4}


def test_nobody_goes_the_other_way_for_who_was_moved_by_hand():
    """Shows: G3; the move is one more worker there, and one less here."""
    groups = {"A": Demand(), "B": Demand()}
    stay = [worker(f"a{n}", group="A") for n in range(2)]
    stay += [worker(f"b{n}", group="B") for n in range(3)]
    moved = worker("w", group="B", pinned="B")

    plan = allocate([*stay, moved], groups)

    assert plan.moves([*stay, moved]) == []
    assert counts(plan) == {"A": 2, "B": 4}


def test_who_was_moved_by_hand_counts_for_the_min_and_the_max():
    groups = {"A": Demand(min=2), "B": Demand(min=2, max=2)}
    moved = [worker(f"w{n}", group="B", pinned="B") for n in range(2)]

    plan = allocate([*moved, *(worker(f"a{n}") for n in range(3))], groups)

    assert counts(plan) == {"A": 3, "B": 2}


@pytest.mark.parametrize(
    ("one", "groups", "why"),
    [
        (worker("w", group="A"), {"A": Demand()}, "it serves A, and nothing is better"),
        (worker("w", ""), {"A": Demand()}, "no group may have it"),
        (worker("w"), {"A": Demand(max=0, min=0)}, "A has its max of 0"),
        (worker("w"), {"A": Demand(min=2)}, "A has 0 and wants 2 at least"),
        (worker("w"), {"A": Demand(min=0)}, "by weight 1 A gets 1 of 1"),
        (worker("w", pinned="A"), {"A": Demand()}, "it was moved there by hand"),
    ],
)
def test_each_placement_has_its_reason(one, groups, why):
    (placement,) = allocate([one], groups).placements.values()

    assert placement.why == why


# --- against all other sharings ------------------------------------------------

_DEMANDS = st.builds(
    lambda least, more, weight: Demand(
        min=least, max=None if more is None else least + more, weight=weight
    ),
    st.integers(0, 3),
    st.none() | st.integers(0, 2),
    st.integers(1, 3),
)


@st.composite
def scenes(draw, most: int = 5):
    groups = draw(st.dictionaries(st.sampled_from(NAMES), _DEMANDS, max_size=3))
    workers = []
    for number in range(draw(st.integers(0, most))):
        allowed = draw(st.frozensets(st.sampled_from(NAMES)))
        some = st.none() | st.sampled_from(NAMES)
        workers.append(
            Candidate(
                key=f"w{number}",
                allowed=allowed,
                group=draw(some),
                last=draw(some),
                pinned=draw(st.none() | some),
            )
        )
    return workers, groups


def possible(workers: list[Candidate], groups: dict[str, Demand]):
    """All sharings with nobody where it may not be, and no group beyond its max."""
    choices = [[None, *may_serve(one, groups)] for one in workers]
    for places in itertools.product(*choices):
        had = Counter(places)
        if all(g.max is None or had[name] <= g.max for name, g in groups.items()):
            yield places


def shares_of(
    had: Counter[str | None], groups: dict[str, Demand], workers: list[Candidate]
) -> list[float]:
    """How far above its share each place is that is beyond a min, the worst first.

    Who serves nobody counts as the worst of all; who was moved by hand is no part of
    his group's share.
    """
    pinned = Counter(one.pinned for one in workers if one.pinned in one.allowed)
    above = [
        (2 * (number - pinned[name]) - 1) / demand.weight
        for name, demand in groups.items()
        for number in range(demand.min + 1, had[name] + 1)
    ]
    return sorted(above + [float("inf")] * had[None], reverse=True)


@settings(max_examples=150)
@given(scenes())
def test_no_group_has_more_than_its_max_nor_whom_it_may_not_have(scene):
    workers, groups = scene
    plan = allocate(workers, groups)

    places = tuple(plan.placements[one.key].group for one in workers)
    assert places in set(possible(workers, groups))


@settings(max_examples=150)
@given(scenes())
def test_every_min_is_met_whenever_that_is_possible(scene):
    """This is a flow, for workers satisfy different groups."""
    workers, groups = scene
    had = counts(allocate(workers, groups))

    def complete(had: Counter[str | None]) -> set[str]:
        return {name for name, demand in groups.items() if had[name] >= demand.min}

    others = [complete(Counter(places)) for places in possible(workers, groups)]
    # No sharing completes these and one more; so if all can be, all are.
    assert not any(complete(had) < other for other in others)


@settings(max_examples=150)
@given(scenes())
def test_beyond_the_mins_no_sharing_is_fairer(scene):
    """This is a flow, for workers satisfy different groups."""
    workers, groups = scene
    had = counts(allocate(workers, groups))
    if any(had[name] < demand.min for name, demand in groups.items()):
        return  # who comes first then is another test's
    for places in possible(workers, groups):
        other = Counter(places)
        if all(other[name] >= demand.min for name, demand in groups.items()):
            fairest = shares_of(had, groups, workers)
            assert fairest <= shares_of(other, groups, workers)


@settings(max_examples=150)
@given(scenes())
def test_no_worker_moves_without_gain(scene):
    """With as many in each group, no sharing leaves more workers where they run."""
    workers, groups = scene
    plan = allocate(workers, groups)

    def stay(places) -> int:
        return sum(
            one.group == place
            for one, place in zip(workers, places, strict=True)
            if one.group is not None
        )

    ours = [plan.placements[one.key].group for one in workers]
    most = max(
        stay(places)
        for places in possible(workers, groups)
        if Counter(places) == Counter(ours)
    )
    assert stay(ours) == most


@settings(max_examples=150)
@given(scenes(most=9))
def test_who_follows_the_plan_finds_nothing_left_to_do(scene):
    """It settles after one round."""
    workers, groups = scene
    plan = allocate(workers, groups)
    settled = followed(workers, plan)

    again = allocate(settled, groups)

    assert again.moves(settled) == []
    assert again.missing == plan.missing


@settings(max_examples=100)
@given(scenes(most=9), st.randoms(use_true_random=False))
def test_the_order_of_naming_changes_nothing(scene, chance: random.Random):
    workers, groups = scene
    other_workers, other_groups = list(workers), list(groups.items())
    chance.shuffle(other_workers)
    chance.shuffle(other_groups)

    assert allocate(workers, groups) == allocate(other_workers, dict(other_groups))


@settings(max_examples=100)
@given(scenes(most=9), st.data())
def test_following_half_of_a_plan_leads_to_no_other_one(scene, data):
    """Some are slower than others: what is left to do is what was left out."""
    workers, groups = scene
    plan = allocate(workers, groups)
    done = data.draw(st.sets(st.sampled_from([w.key for w in workers] or ["none"])))
    halfway = [
        new if new.key in done else old
        for old, new in zip(workers, followed(workers, plan), strict=True)
    ]
    settled = followed(halfway, allocate(halfway, groups))

    assert allocate(settled, groups).moves(settled) == []


# --- held --------------------------------------------------------------------


def test_nobody_comes_to_a_held_group_or_leaves_it():
    workers = [worker("a", group="A"), worker("b", group="A"), worker("c")]
    groups = {"A": Demand(min=5, max=1), "B": Demand(min=2, weight=9)}

    plan = allocate(workers, groups, held={"A"})

    assert [plan.placements[key].group for key in "abc"] == ["A", "A", "B"]
    assert plan.placements["a"].why == "A is held as it is"
    assert plan.missing == {"B": 1}
    assert not plan.moves(w for w in followed(workers, plan) if w.key in "ab")


def test_who_may_not_serve_a_held_group_any_more_leaves_it():
    workers = [worker("a", "B", group="A"), worker("b", group="A")]

    plan = allocate(workers, {"A": Demand(), "B": Demand()}, held={"A"})

    assert plan.placements["a"].group == "B"
    assert plan.placements["b"].group == "A"


def test_who_is_free_beside_a_held_group_is_told_so():
    only = allocate([worker("a")], {"A": Demand()}, held={"A"})
    full = allocate([worker("a")], {"A": Demand(), "B": Demand(max=0)}, held={"A"})

    assert only.placements["a"].why == "A is held as it is"
    assert full.placements["a"].why == "A is held as it is, B has its max of 0"


def test_who_is_pinned_to_a_held_group_waits_elsewhere():
    plan = allocate(
        [worker("a", pinned="A")], {"A": Demand(), "B": Demand()}, held={"A"}
    )

    assert plan.placements["a"].group == "B"
