"""Discovery in memory and on loopback keeps the same promises."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.model.trust import Role
from aemesh.net.discovery import open_discovery
from aemesh.net.interfaces import (
    InterfaceWatch,
    LocalAddress,
    local_addresses,
    scope_name,
    time_since_boot,
)
from aemesh.net.presence import Announcer, Discovery
from aemesh.net.sighting import Heard, Pace, judge
from aemesh.net.wallclock import new_run
from aemesh.policy.discovery import New, Same, Sightings, Updated
from aemesh.protocol.announcement import decode_untrusted, instance_name
from aemesh.testing.checks_discovery import check_discovery, heard, new_presence
from aemesh.testing.memory_discovery import MemorySegment

NOW = 1_800_000_000.0


async def test_discovery_in_memory_keeps_the_contract(
    autojump_clock: trio.testing.MockClock,
) -> None:
    segment = MemorySegment()

    await check_discovery(segment.open)


async def test_discovery_on_loopback_keeps_the_contract() -> None:
    def open_node() -> AbstractAsyncContextManager[Discovery]:
        return open_discovery(interfaces=["lo"], loopback=True)

    await check_discovery(open_node)


async def test_without_loopback_a_machine_without_a_network_says_nothing() -> None:
    presence, sign = new_presence()
    async with (
        open_discovery(interfaces=["lo"]) as node,
        node.browse(Role.WORKER, Sightings()) as stream,
    ):
        await node.announce(presence, sign=sign)
        await node.re_announce()
        with trio.move_on_after(0.2) as scope:
            await anext(stream)

    assert scope.cancelled_caught


async def test_new_addresses_are_announced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    presence, sign = new_presence()
    segment = MemorySegment()
    async with (
        segment.open("10.0.0.1") as node,
        segment.open("10.0.0.9") as other,
        other.browse(Role.WORKER, Sightings()) as stream,
    ):
        await node.announce(presence, sign=sign)
        await heard(stream, New, presence)
        await node.move("10.0.0.2", "fd00::2")
        news = await heard(stream, Updated, presence)

    assert [a.host for a in news.announcement.addresses] == ["10.0.0.2", "fd00::2"]


def test_each_announcement_is_later_than_the_one_before_whatever_the_clock() -> None:
    presence, sign = new_presence()
    announcer = Announcer(presence, sign=sign)

    times = [
        int(announcer.make(["10.0.0.1"], now)["t"])
        for now in (NOW, NOW, NOW - 3600, NOW + 10)
    ]

    first = int(NOW * 1000)
    assert times == [first, first + 1, first + 2, first + 10_000]


def test_a_node_that_is_started_again_within_a_second_is_the_later_one() -> None:
    """It was counted as a replay, and not heard: times had whole seconds.

    Shows: D1
    """
    presence, sign = new_presence()
    before = Announcer(presence, sign=sign)
    said = [before.make(["10.0.0.1"], NOW + late) for late in (0.1, 0.2, 0.2)]
    after = Announcer(replace(presence, run=new_run()), sign=sign)
    said.append(after.make(["10.0.0.1"], NOW + 0.6))
    sightings = Sightings()

    news = []
    for txt in said:
        sent = {key.encode(): value.encode() for key, value in txt.items()}
        announcement = decode_untrusted(presence.role, before.instance, sent)
        news.append(type(sightings.heard(announcement, NOW + 1)))

    assert news == [New, Updated, Updated, Updated]


@pytest.mark.parametrize(
    ("later_after", "due"),
    [
        (0, False),
        (limits.ANNOUNCEMENT_AFTER / 2 - 1, False),
        (limits.ANNOUNCEMENT_AFTER / 2 + 1, True),
        (limits.ANNOUNCEMENT_AFTER * 100, True),  # the clock jumped forwards
        (-limits.ANNOUNCEMENT_AFTER, True),  # and back
    ],
)
def test_renewal_is_due_at_half_of_the_life(
    later_after: float,
    due: bool,
) -> None:
    presence, sign = new_presence()
    announcer = Announcer(presence, sign=sign)
    announcer.make(["10.0.0.1"], NOW)

    assert announcer.is_due(NOW + later_after) is due


@pytest.mark.parametrize(
    ("scopes", "links", "hosts"),
    [
        ({"fe80::1": "1"}, ("eth0",), ["10.0.0.1", "fe80::1%lo"]),
        ({}, ("eth0",), ["10.0.0.1", "fe80::1%eth0"]),
        ({}, ("a", "b"), ["10.0.0.1", "fe80::1%a", "fe80::1%b"]),
        ({}, (), ["10.0.0.1"]),
        ({"fe80::1": "999999"}, ("eth0",), ["10.0.0.1", "fe80::1%eth0"]),
        ({"fe80::2": "1", "10.0.0.1": "1"}, ("eth0",), ["10.0.0.1", "fe80::1%eth0"]),
    ],
)
def test_a_link_local_address_gets_the_scope_it_was_heard_on(
    scopes: dict[str, str], links: tuple[str, ...], hosts: list[str]
) -> None:
    presence, sign = new_presence()
    made = Announcer(presence, sign=sign).make(["10.0.0.1", "fe80::1%eth7"], NOW)
    txt: dict[bytes, bytes | None] = {k.encode(): v.encode() for k, v in made.items()}
    event = Heard(instance_name(presence.key.key_id), txt, scopes)

    news = judge(Role.WORKER, event, Sightings(), now=NOW, links=links)

    assert isinstance(news, New)
    assert [address.host for address in news.announcement.addresses] == hosts


async def test_strangers_are_judged_at_a_bounded_pace(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = Pace(1000)
    began = trio.current_time()
    for _ in range(10_000):
        await pace.wait()

    assert trio.current_time() - began == pytest.approx(10, rel=0.01)
    await trio.sleep(5)
    began = trio.current_time()
    for _ in range(250):
        await pace.wait()
    assert trio.current_time() - began < 0.01


def test_our_addresses_are_found() -> None:
    assert LocalAddress("lo", "127.0.0.1") in local_addresses(["lo"], loopback=True)
    assert local_addresses(["lo"]) == ()
    assert local_addresses(["no such interface"], loopback=True) == ()
    assert not any(one.interface == "lo" for one in local_addresses())


def test_the_scope_of_an_address_is_an_interface_of_ours() -> None:
    assert scope_name("1") == "lo"
    assert scope_name("eth0") == "eth0"
    assert scope_name("999999") is None
    assert scope_name("") is None


async def test_watching_tells_at_once_what_there_is() -> None:
    with trio.fail_after(1):
        local = await anext(InterfaceWatch(["lo"], loopback=True))

    assert local == local_addresses(["lo"], loopback=True)


async def test_after_a_sleep_all_is_looked_at_afresh(autojump_clock) -> None:
    """Shows: D7; trio's clock stands still meanwhile, the machine's does not."""
    slept = 0.0
    watch = InterfaceWatch(
        ["lo"], loopback=True, clock=lambda: trio.current_time() + slept
    )
    first = await anext(watch)
    with trio.move_on_after(60 * limits.INTERFACES_EVERY) as scope:
        await anext(watch)  # while nothing happens it has nothing to say
    assert scope.cancelled_caught

    async with trio.open_nursery() as nursery:
        told: list[object] = []

        async def listen() -> None:
            told.append(await anext(watch))

        nursery.start_soon(listen)
        await trio.sleep(limits.INTERFACES_EVERY / 2)
        slept += 3600.0

    assert told == [first]


async def test_the_clock_of_the_interfaces_goes_on() -> None:
    before = time_since_boot()
    assert 0 < before <= time_since_boot()


async def test_a_move_is_told_and_all_is_asked_again() -> None:
    """Shows: D7; also to the same addresses: the network behind them may be another."""
    presence, sign = new_presence()
    sightings = Sightings()
    async with (
        open_discovery(interfaces=["lo"], loopback=True) as speaker,
        open_discovery(interfaces=["lo"], loopback=True) as node,
        node.browse(presence.role, sightings) as news,
    ):
        with trio.fail_after(20):
            await speaker.announce(presence, sign=sign)
            await heard(news, New, presence)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.wait_move)
                await trio.testing.wait_all_tasks_blocked()
                await node.move(node.local)

            await heard(news, Same, presence)
