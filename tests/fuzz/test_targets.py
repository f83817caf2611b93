"""Each target with its seeds, with what once broke it, and with hypothesis' inputs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.found import FOUND
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_seeds_of_a_target_pass(name):
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_once_broke_a_decoder_does_so_no_more(name, data):
    TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_nothing_but_the_decoder_s_own_errors_comes_of_random_bytes(name, data):
    TARGETS[name].run(data.draw(st.binary(max_size=300)))
