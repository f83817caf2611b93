"""The address of a member is one that other members can use."""

from __future__ import annotations

import pytest

from aemesh.model.address import Address
from aemesh.policy.reach import member_host

V4, ULA = Address("10.77.0.3", 7472), Address("fd77::3", 7472)
LOCAL = Address("fe80::1%eth0", 40001)
OTHER_LOCAL = Address("fe80::2%eth0", 7472)


@pytest.mark.parametrize(
    ("remote", "announced", "host"),
    [
        (Address("10.77.0.3", 36650), (ULA, V4), "10.77.0.3"),  # whoever dialled
        (ULA, (V4,), "fd77::3"),
        (LOCAL, (ULA, V4, OTHER_LOCAL), "10.77.0.3"),
        (LOCAL, (OTHER_LOCAL, ULA), "fd77::3"),
        (LOCAL, (OTHER_LOCAL,), "fe80::1%eth0"),
        (LOCAL, (), "fe80::1%eth0"),
        (Address("169.254.7.7", 7472), (V4,), "169.254.7.7"),
    ],
)
def test_a_link_local_address_is_the_last_choice(remote, announced, host):
    assert member_host(remote, announced) == host


@pytest.mark.parametrize(
    ("own", "host"),
    [
        ("10.77.0.9", "10.77.0.9"),
        ("fd77::9", "fd77::9"),
        ("fe80::9", "10.77.0.3"),
        ("", "10.77.0.3"),
        ("office-1", "10.77.0.3"),
        ("2001:db8::1%eth0", "10.77.0.3"),
        ("2001:db8::1%\x1b[2J\x1b]0;owned\x07\nroot  ok", "10.77.0.3"),
    ],
)
def test_what_a_worker_says_of_its_own_address_is_an_address_for_others(own, host):
    assert member_host(V4, (ULA,), own) == host
