"""Half a minute of the soak, and what its stories are; `make soak` is all of it."""

from __future__ import annotations

import pytest

from aemesh.testing.lab_needs import can_build
from soak.__main__ import soak
from soak.stage import GROUPS, LAPTOP, WORKERS
from soak.story import Fault, read, tell

SEED = 7
SECONDS = 30.0
NAMES = {"master": LAPTOP, "workers": WORKERS, "groups": GROUPS}


@pytest.mark.lab
@pytest.mark.long
@pytest.mark.skipif(
    not can_build(), reason="run beneath `python -m aemesh.testing.lab --`"
)
async def test_what_must_hold_holds_while_one_thing_after_the_other_goes_wrong():
    """Shows: L2, L7, G2, D7."""
    story = tell(SEED, SECONDS, **NAMES)

    watch = await soak(story, SECONDS)

    assert [str(one) for one in watch.falls] == []
    assert all(watch.done.values()), watch.done
    assert watch.looks > 3


def test_a_seed_tells_one_story_and_a_file_tells_it_again():
    story = tell(SEED, 1200, **NAMES)
    lines = ["# seed 7", "", *map(str, story)]

    assert tell(SEED, 1200, **NAMES) == story
    assert tell(SEED + 1, 1200, **NAMES) != story
    assert list(read(lines)) == story
    assert tell(SEED, 60, **NAMES) == [one for one in story if one.at < 60]


def test_a_story_has_every_fault_and_leaves_the_office_able_to_work():
    story = tell(SEED, 1200, **NAMES)

    assert {one.fault for one in story} == set(Fault)
    for deed in story:
        together = [one for one in story if one.at <= deed.at <= one.ends]
        assert len({one.on for one in together} - {LAPTOP}) <= len(WORKERS) / 2
        assert [one for one in together if one.on == deed.on] == [deed]
