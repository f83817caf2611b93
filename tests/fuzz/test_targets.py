"""Each target with its seeds, with what once broke it, and with hypothesis' inputs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.cutter import Cutter
from tests.fuzz.found import FOUND
from tests.fuzz.talks import CASES, HONEST, flood
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_an_honest_input_gets_through_its_target(name):
    assert TARGETS[name].run(TARGETS[name].seeds[0])


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_pass(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_once_broke_a_decoder_does_so_no_more(name, data):
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_but_the_decoder_s_own_errors_comes_of_random_bytes(name, data):
    TARGETS[name].run(data.draw(st.binary(max_size=300)))


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_the_pieces_of_a_stream_are_the_stream(stream, cuts):
    assert b"".join(Cutter(cuts).pieces(stream)) == stream


@pytest.mark.parametrize("kind", ["dance", *HONEST])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_message_without_end_piles_up_nowhere(kind, case):
    flood(kind, 1, *case)
