"""How often the words of a first meeting may be shown in vain; times are numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.policy.tries import Tries

SOURCE = "192.0.2.1"


def test_three_tries_that_nobody_confirmed_shut_a_source_out_for_ten_minutes():
    """Threat: 29."""
    tries = Tries()

    assert [tries.begin(SOURCE, 10.0 * n) for n in range(4)] == [1, 2, 3, None]
    assert tries.begin(SOURCE, 20.0 + 599.9) is None
    assert tries.begin(SOURCE, 20.0 + 600.0) == 1
    tries.check()


def test_a_thousand_tries_at_once_are_three():
    """Threat: 29: an attacker that tries on and on has 18 an hour."""
    tries = Tries()

    numbers = [tries.begin(SOURCE, 3.6 * n) for n in range(1000)]

    counted = [number for number in numbers if number is not None]
    assert len(counted) <= 18
    assert counted == [1, 2, 3] * (len(counted) // 3)


def test_a_try_is_forgotten_after_ten_minutes():
    tries = Tries()

    assert [tries.begin(SOURCE, at) for at in (0, 300, 601, 1300)] == [1, 2, 2, 1]


def test_a_source_that_was_confirmed_begins_anew():
    tries = Tries()
    tries.begin(SOURCE, 0.0)
    tries.begin(SOURCE, 1.0)

    tries.confirm(SOURCE)
    tries.confirm("never seen")

    assert tries.begin(SOURCE, 2.0) == 1


def test_one_source_does_not_shut_out_another():
    tries = Tries()
    for n in range(5):
        tries.begin(SOURCE, float(n))

    assert tries.begin("192.0.2.2", 5.0) == 1


def test_the_table_is_bounded_and_the_oldest_goes_first():
    """Threat: 29."""
    tries = Tries()
    for n in range(limits.PAIRING_SOURCES + 10):
        for _ in range(limits.PAIRINGS):
            tries.begin(str(n), 0.0)
        tries.check()

    assert repr(tries) == f"<Tries of {limits.PAIRING_SOURCES} sources>"
    assert tries.begin("0", 1.0) == 1
    assert tries.begin(str(limits.PAIRING_SOURCES + 9), 1.0) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["begin", "begin", "begin", "confirm"]),
            st.sampled_from(["a", "b"]),
            st.floats(0.0, 400.0),
        ),
        max_size=60,
    )
)
def test_no_ten_minutes_have_more_than_three_tries_of_a_source(steps):
    """Threat: 29."""
    tries, now = Tries(), 0.0
    begun: dict[str, list[float]] = {"a": [], "b": []}
    for what, source, later in steps:
        now += later
        if what == "confirm":
            tries.confirm(source)
            begun[source].clear()
        else:
            number = tries.begin(source, now)
            recent = [at for at in begun[source] if now - at < limits.PAIRINGS_WITHIN]
            if number is None:
                assert begun[source], "a source that never tried is not shut out"
                assert now - begun[source][-1] < limits.PAIRINGS_SHUT_AFTER
            else:
                assert number == len(recent) + 1
                assert number <= limits.PAIRINGS
                begun[source].append(now)
        tries.check()
