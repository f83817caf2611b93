"""The worker's own side of a lease: one master, and generations that only rise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import RefusedError
from aemesh.model.group import Lease
from aemesh.model.key import KeyId
from aemesh.policy.lease import Tenancy

WORKER, DESK, OTHER = (KeyId(bytes([n]) * 32) for n in range(3))


@pytest.fixture
def held() -> Tenancy:
    tenancy = Tenancy(WORKER)
    tenancy.assign(DESK, "A", 5)
    tenancy.check()
    return tenancy


def test_a_free_worker_takes_a_lease():
    tenancy = Tenancy(WORKER, generation=4)

    lease = tenancy.assign(DESK, "A", 5)

    assert lease == Lease(DESK, WORKER, "A", 5)
    assert tenancy.holds(DESK, 5) is lease
    assert repr(tenancy) == "<Tenancy held for A, generation 5>"
    tenancy.check()


@pytest.mark.parametrize("generation", [0, 3, 4])
def test_an_assignment_of_a_past_generation_is_refused(generation):
    tenancy = Tenancy(WORKER, generation=4)

    with pytest.raises(RefusedError, match=f"{generation} is over; the last one was 4"):
        tenancy.assign(DESK, "A", generation)

    assert tenancy.lease is None
    tenancy.check()


def test_two_masters_cannot_hold_one_worker(held):
    """Shows: G5."""
    with pytest.raises(RefusedError, match="it serves group A"):
        held.assign(OTHER, "B", 6)

    assert held.holds(DESK, 5)
    held.check()


def test_the_same_master_may_replace_its_own_lease_by_a_newer_one(held):
    held.assign(DESK, "B", 6)
    held.check()

    assert held.holds(DESK, 6).group == "B"
    with pytest.raises(RefusedError, match="late"):
        held.holds(DESK, 5)


@pytest.mark.parametrize(
    ("master", "generation", "words"),
    [
        (OTHER, 5, "not held by this master"),
        (DESK, 4, "generation 4, the worker in 5"),
        (DESK, 6, "generation 6, the worker in 5"),
    ],
)
def test_a_command_of_another_lease_is_refused(held, master, generation, words):
    """Shows: G2."""
    with pytest.raises(RefusedError, match=words):
        held.holds(master, generation)


@pytest.mark.parametrize(
    ("master", "generation", "free"),
    [(DESK, 5, True), (DESK, 4, False), (DESK, 6, False), (OTHER, 5, False)],
)
def test_only_the_present_lease_is_given_back(held, master, generation, free):
    held.release(master, generation)
    held.check()

    assert (held.lease is None) == free


def test_a_vacant_lease_is_its_masters_and_nothing_runs_under_it(held):
    """Shows: G5, G2."""
    held.vacate(DESK, 5)
    held.check()

    with pytest.raises(RefusedError, match="is held"):
        held.assign(OTHER, "B", 6)
    with pytest.raises(RefusedError, match="generation 5 has ended"):
        held.holds(DESK, 5)
    with pytest.raises(RefusedError, match="nothing runs under it"):
        held.adopt(DESK, "A", 5, holder_is_here=False)
    assert repr(held) == "<Tenancy held for A, vacant, generation 5>"
    held.assign(DESK, "B", 6)
    assert held.holds(DESK, 6)


@pytest.mark.parametrize(
    ("master", "generation", "free"),
    [(DESK, 5, True), (DESK, 6, True), (DESK, 4, False), (OTHER, 6, False)],
)
def test_a_vacant_lease_ends_with_what_was_to_replace_it(
    held, master, generation, free
):
    """An assignment that was refused has a number, too; its end frees the worker."""
    held.vacate(DESK, 5)
    held.release(master, generation)
    held.check()

    assert (held.lease is None) == free


def test_after_a_release_only_a_newer_generation_is_taken(held):
    held.release(DESK, 5)

    with pytest.raises(RefusedError):
        held.assign(OTHER, "B", 5)
    assert held.assign(OTHER, "B", 6).master == OTHER


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([DESK, OTHER]), st.integers(0, 9))
    )
)
def test_generations_only_rise(steps):
    tenancy = Tenancy(WORKER)
    for assign, master, generation in steps:
        before = tenancy.generation, tenancy.lease
        try:
            if assign:
                tenancy.assign(master, "A", generation)
                assert generation > before[0]
            else:
                tenancy.release(master, generation)
        except RefusedError:
            assert (tenancy.generation, tenancy.lease) == before
        tenancy.check()
        assert tenancy.generation >= before[0]


def test_a_group_that_the_owner_does_not_allow_gets_no_lease():
    """Shows: G1."""
    tenancy = Tenancy(WORKER, groups=frozenset({"A", "B"}))

    with pytest.raises(RefusedError, match="group C; only A, B"):
        tenancy.assign(DESK, "C", 1)

    assert tenancy.lease is None
    assert tenancy.assign(DESK, "B", 1).group == "B"
