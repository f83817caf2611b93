"""The table of what was seen: bounded, and never the worse for a liar."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aemesh import limits
from aemesh.model.address import Address
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.machine import Announcement
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.policy.discovery import (
    Expired,
    Imposter,
    Replayed,
    Same,
    Sightings,
    Silent,
    Updated,
    dialable,
)

NOW = 1_800_000_000
DAY = 86_400


def announced(
    number: int, *, at: int = NOW, hosts: tuple[str, ...] = ("10.0.0.1",)
) -> Announcement:
    return Announcement(
        role=Role.WORKER,
        name=NodeName(f"worker-{number}"),
        key=PublicKey(number.to_bytes(32, "big")),
        mode=Mode.LEAP,
        cores=4,
        memory=2**33,
        addresses=tuple(Address(host, 7472) for host in hosts),
        signed_at=at,
        expires_at=at + DAY,
    )


def key_of(number: int) -> KeyId:
    return announced(number).key.key_id


def instance_of(number: int) -> str:
    return f"aemesh-{key_of(number).label}"


@pytest.mark.parametrize(
    ("first_at", "second_at", "now", "kind"),
    [
        (NOW, NOW, NOW + 1, Same),
        (NOW, NOW + 1, NOW + 1, Updated),
        (NOW, NOW - 1, NOW + 1, Replayed),
        (NOW, NOW - DAY, NOW + 1, Replayed),
        (NOW, NOW - DAY - 400, NOW, Expired),
        # Our clock may be five minutes ahead of theirs.
        (NOW - DAY, NOW - DAY + 1, NOW + 200, Updated),
        # A clock a day ahead, then right again: both are believed.
        (NOW + DAY, NOW + 400, NOW + 400, Updated),
        (NOW + DAY, NOW + DAY, NOW + 5, Same),
    ],
)
def test_what_a_second_announcement_is(
    first_at: int, second_at: int, now: int, kind: type
) -> None:
    sightings = Sightings()
    sightings.heard(announced(1, at=first_at), NOW)

    news = sightings.heard(announced(1, at=second_at), now)

    assert type(news) is kind
    sightings.check()


def test_an_expired_announcement_is_not_taken() -> None:
    sightings = Sightings()

    news = sightings.heard(announced(1, at=NOW - 2 * DAY), NOW)

    assert news == Expired(announced(1, at=NOW - 2 * DAY), DAY)
    assert key_of(1) not in sightings


def test_a_replay_changes_nothing() -> None:
    sightings = Sightings([key_of(1)])
    sightings.heard(announced(1, at=NOW, hosts=("10.0.0.2",)), NOW)

    news = sightings.heard(announced(1, at=NOW - 9, hosts=("10.0.0.1",)), NOW)

    assert isinstance(news, Replayed)
    assert news.latest_at == NOW
    assert sightings.addresses(key_of(1)) == (Address("10.0.0.2", 7472),)


def test_one_statement_heard_on_two_networks_has_both_scopes() -> None:
    sightings = Sightings()
    sightings.heard(announced(1, hosts=("fe80::1%eth0",)), NOW)

    news = sightings.heard(announced(1, hosts=("fe80::1%wlan0",)), NOW)
    again = sightings.heard(announced(1, hosts=("fe80::1%eth0",)), NOW)

    assert isinstance(news, Updated)
    assert [a.host for a in news.announcement.addresses] == [
        "fe80::1%eth0",
        "fe80::1%wlan0",
    ]
    assert isinstance(again, Same)


def test_another_statement_of_the_same_second_replaces_the_first() -> None:
    sightings = Sightings()
    sightings.heard(announced(1), NOW)
    moved = replace(announced(1), addresses=(Address("10.0.0.1", 7473),))

    news = sightings.heard(moved, NOW)

    assert news == Updated(moved)


def test_a_goodbye_makes_silent_and_the_next_word_brings_back() -> None:
    sightings = Sightings()
    sightings.heard(announced(1), NOW)

    assert sightings.goodbye(instance_of(1)) == Silent(key_of(1))
    assert sightings.goodbye(instance_of(1)) is None
    assert sightings.snapshot()[0].silent
    assert sightings.addresses(key_of(1)) == announced(1).addresses
    assert isinstance(sightings.heard(announced(1), NOW), Updated)
    assert not sightings.snapshot()[0].silent


@pytest.mark.parametrize("instance", ["", "aemesh-", "aemesh-xyz", "-", "é" * 63])
def test_a_goodbye_of_nobody_is_nothing(instance: str) -> None:
    assert Sightings().goodbye(instance) is None


def test_an_imposter_is_told_by_whom_and_how_often() -> None:
    sightings = Sightings([key_of(1)])

    first = sightings.imposter(instance_of(1), "not signed")
    second = sightings.imposter(instance_of(1), "not signed")
    other = sightings.imposter("printer", "no key")

    assert first == Imposter(instance_of(1), "not signed", key_of(1), 1)
    assert second.times == 2
    assert other.key_id is None


def test_imposters_are_counted_in_a_bounded_table() -> None:
    sightings = Sightings()

    for number in range(3 * limits.IMPOSTERS_SEEN):
        assert sightings.imposter(f"{number} {'x' * 900}", "why").times == 1
        sightings.check()


def test_the_unknown_key_that_was_heard_longest_ago_goes_first() -> None:
    sightings = Sightings()
    for number in range(limits.NAMES_SEEN):
        sightings.heard(announced(number), NOW)
    sightings.heard(announced(0), NOW)  # heard again

    sightings.heard(announced(limits.NAMES_SEEN), NOW)

    assert key_of(0) in sightings
    assert key_of(1) not in sightings
    assert key_of(limits.NAMES_SEEN) in sightings
    sightings.check()


def test_a_key_that_becomes_known_keeps_what_was_heard_of_it() -> None:
    sightings = Sightings()
    sightings.heard(announced(1), NOW)

    sightings.set_known([key_of(1)])
    assert sightings.snapshot()[0].known
    sightings.set_known([])

    assert not sightings.snapshot()[0].known
    assert isinstance(sightings.heard(announced(1), NOW), Same)
    sightings.check()


def test_a_known_key_is_dialled_where_it_was_before_as_well() -> None:
    sightings = Sightings([key_of(1)])
    sightings.proved(key_of(1), Address("10.0.0.9", 7472))
    sightings.heard(announced(1, hosts=("10.0.0.1",)), NOW)

    sightings.heard(announced(1, at=NOW + 1, hosts=("10.0.0.2",)), NOW)

    assert [address.host for address in sightings.addresses(key_of(1))] == [
        "10.0.0.2",
        "10.0.0.1",
        "10.0.0.9",
    ]


def test_an_address_that_proved_right_is_tried_before_older_ones() -> None:
    sightings = Sightings([key_of(1)])
    for number in range(1, 30):
        sightings.heard(announced(1, at=NOW + number, hosts=(f"10.0.0.{number}",)), NOW)
    sightings.proved(key_of(1), Address("10.0.0.3", 7472))

    addresses = sightings.addresses(key_of(1))

    assert [address.host for address in addresses[:3]] == [
        "10.0.0.29",
        "10.0.0.3",
        "10.0.0.28",
    ]
    assert len(addresses) == 1 + limits.ADDRESSES_REMEMBERED
    sightings.check()


def test_nothing_is_remembered_of_unknown_keys() -> None:
    sightings = Sightings()
    sightings.heard(announced(1, hosts=("10.0.0.1",)), NOW)
    sightings.proved(key_of(1), Address("10.0.0.9", 7472))

    sightings.heard(announced(1, at=NOW + 1, hosts=("10.0.0.2",)), NOW)

    assert sightings.addresses(key_of(1)) == (Address("10.0.0.2", 7472),)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("172.31.255.1", True),
        ("172.32.0.1", False),
        ("192.168.1.1", True),
        ("169.254.10.1", True),
        ("fd00::1", True),
        ("fe80::1%eth0", True),
        ("fe80::1", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("8.8.8.8", False),
        ("2001:4860::1", False),
        ("100.64.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("224.0.0.251", False),
        ("ff02::fb", False),
        ("ff02::fb%eth0", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::808:808", False),
        ("office-3.local", False),
        ("", False),
    ],
)
def test_which_addresses_are_dialled(host: str, expected: bool) -> None:
    assert dialable(Address(host, 7472)) is expected


@pytest.mark.parametrize(
    ("port", "expected"),
    [(-1, False), (0, False), (22, False), (1023, False), (1024, True), (65536, False)],
)
def test_which_ports_are_dialled(port: int, expected: bool) -> None:
    assert dialable(Address("10.0.0.1", port)) is expected


def test_loopback_is_dialled_only_if_asked() -> None:
    assert dialable(Address("127.0.0.1", 7472), loopback=True)
    assert dialable(Address("::1", 7472), loopback=True)
    assert not dialable(Address("127.0.0.1", 80), loopback=True)
    assert not dialable(Address("8.8.8.8", 7472), loopback=True)


class AnyOrder(RuleBasedStateMachine):
    """Whatever comes in whatever order, `check` holds."""

    def __init__(self) -> None:
        super().__init__()
        self.sightings = Sightings()
        self.clock = itertools.count(NOW)

    @rule(number=st.integers(0, 9), at=st.integers(-2 * DAY, 2 * DAY))
    def hear(self, number: int, at: int) -> None:
        self.sightings.heard(announced(number, at=NOW + at), next(self.clock))

    @rule(number=st.integers(0, 9))
    def leave(self, number: int) -> None:
        self.sightings.goodbye(instance_of(number))

    @rule(numbers=st.sets(st.integers(0, 9)))
    def know(self, numbers: set[int]) -> None:
        self.sightings.set_known(key_of(number) for number in numbers)

    @rule(number=st.integers(0, 9), last=st.integers(1, 250))
    def prove(self, number: int, last: int) -> None:
        self.sightings.proved(key_of(number), Address(f"10.0.0.{last}", 7472))

    @rule(number=st.integers(0, 9))
    def lie(self, number: int) -> None:
        self.sightings.imposter(instance_of(number), "a lie")

    @invariant()
    def holds(self) -> None:
        self.sightings.check()


test_any_order_keeps_the_table_whole = AnyOrder.TestCase
