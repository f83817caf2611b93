"""What a line of trust allows: patterns, networks, moments."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.names import GroupName
from aemesh.model.trust import Decision, Reason, Terms
from aemesh.policy.terms import allow_group, breach, matches

THEN = 1_800_000_000.0


@pytest.mark.parametrize(
    ("patterns", "value", "expected"),
    [
        ((), "a", True),
        (("a",), "a", True),
        (("a",), "A", False),
        (("a",), "ab", False),
        (("a*",), "ab", True),
        (("a?",), "a", False),
        (("*",), "", True),
        (("b", "a"), "a", True),
        (("!a",), "b", False),  # a list of refusals alone allows nothing
        (("*", "!a"), "a", False),
        (("!a", "*"), "a", False),  # the order is no matter
        (("*", "!a"), "b", True),
        (("!a*", "ab"), "ab", False),
        (("!",), "a", False),
    ],
)
def test_patterns_are_those_of_ssh(patterns, value, expected):
    assert matches(patterns, value) is expected
    assert allow_group([Terms(groups=patterns)], GroupName(value)) is expected


@pytest.mark.parametrize(
    ("sources", "host", "expected"),
    [
        ((), "192.0.2.7", True),
        (("192.0.2.7",), "192.0.2.7", True),
        (("192.0.2.0/24",), "192.0.2.255", True),
        (("192.0.2.0/24",), "192.0.3.0", False),
        (("192.0.2.*",), "192.0.2.7", True),
        (("192.0.?.7",), "192.0.2.7", True),
        (("192.0.2.0/24", "!192.0.2.7"), "192.0.2.7", False),
        (("192.0.2.0/24", "!192.0.2.7"), "192.0.2.8", True),
        (("*",), "2001:db8::1", True),
        (("2001:db8::/32",), "2001:db8::1", True),
        (("2001:db8::/32",), "192.0.2.7", False),
        (("fe80::/10",), "fe80::1%eth0", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
        # One machine, however its address is shown.
        (("192.0.2.0/24",), "::ffff:192.0.2.7", True),
        (("*", "!192.0.2.7"), "::ffff:192.0.2.7", False),
    ],
)
def test_sources_are_networks_addresses_or_patterns(sources, host, expected):
    verdict = breach(Terms(sources=sources), host=host, user="", now=THEN)

    assert (verdict is None) is expected
    if verdict is not None:
        assert (verdict.decision, verdict.reason) == (Decision.NO, Reason.SOURCE)


@pytest.mark.parametrize(
    ("expires_at", "expected"),
    [(None, True), (THEN + 0.5, True), (THEN, False), (THEN - 1, False), (0.0, False)],
)
def test_a_line_holds_until_its_moment(expires_at, expected):
    verdict = breach(Terms(expires_at=expires_at), host="::1", user="", now=THEN)

    assert (verdict is None) is expected
    if verdict is not None:
        assert verdict.reason is Reason.EXPIRED


@pytest.mark.parametrize(
    ("users", "user", "expected"),
    [
        ((), "alice", True),
        (("alice", "render"), "render", True),
        (("alice",), "root", False),
        (("alice",), "", True),  # no user is asked for
    ],
)
def test_jobs_run_as_whom_the_line_names(users, user, expected):
    verdict = breach(Terms(users=users), host="::1", user=user, now=THEN)

    assert (verdict is None) is expected
    if verdict is not None:
        assert verdict.reason is Reason.USER


def test_of_several_terms_the_first_that_is_broken_is_told():
    terms = Terms(sources=("10.0.0.0/8",), users=("bob",), expires_at=THEN)

    def told(**changes: object) -> Reason | None:
        asked = {"host": "192.0.2.7", "user": "alice", "now": THEN, **changes}
        verdict = breach(terms, **asked)
        return None if verdict is None else verdict.reason

    assert told() is Reason.EXPIRED
    assert told(now=THEN - 1) is Reason.SOURCE
    assert told(now=THEN - 1, host="10.1.2.3") is Reason.USER
    assert told(now=THEN - 1, host="10.1.2.3", user="bob") is None


@given(
    st.lists(st.text(max_size=20), max_size=4),
    st.ip_addresses().map(str),
)
def test_any_pattern_is_judged_without_an_error(patterns, host):
    verdict = breach(Terms(sources=tuple(patterns)), host=host, user="", now=THEN)

    assert verdict is None or verdict.reason is Reason.SOURCE


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_an_address_is_in_its_own_networks_and_may_be_left_out(ip, bits):
    net = str(ipaddress.ip_network((ip, bits), strict=False))

    def ok(*sources: str) -> bool:
        terms = Terms(sources=sources)
        return breach(terms, host=str(ip), user="", now=THEN) is None

    assert ok(net)
    assert not ok(net, f"!{ip}")
    assert not ok(f"!{net}", str(ip))
