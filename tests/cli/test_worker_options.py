"""What a worker's command line says of its groups and labels."""

from __future__ import annotations

import pytest

from aemesh import limits
from aemesh.cli.settings import WorkerOptions
from aemesh.errors import UsageError


@pytest.mark.parametrize(
    ("groups", "listed", "expected"),
    [
        ((), None, set()),
        (("A",), None, {"A"}),
        ((), "A,B", {"A", "B"}),
        (("C",), "A, B", {"A", "B", "C"}),
    ],
)
def test_groups_are_named_one_by_one_or_as_a_list(groups, listed, expected) -> None:
    """Shows: G1."""
    options = WorkerOptions(groups=groups, more_groups=listed)

    assert options.allowed_groups() == expected


@pytest.mark.parametrize("listed", ["", "A,,B", "A,../x", ","])
def test_a_list_with_a_name_that_is_none_is_refused(listed) -> None:
    """An owner who mistypes the list has not allowed every group."""
    with pytest.raises(UsageError):
        WorkerOptions(more_groups=listed).allowed_groups()


def test_labels_are_words_each_once_and_not_too_many() -> None:
    assert WorkerOptions(labels=("gpu", "a100", "gpu")).checked_labels() == (
        "a100",
        "gpu",
    )
    with pytest.raises(UsageError, match="label name"):
        WorkerOptions(labels=("two words",)).checked_labels()
    many = tuple(f"l{number}" for number in range(limits.LABELS + 1))
    with pytest.raises(UsageError, match="at most"):
        WorkerOptions(labels=many).checked_labels()
