"""zeroconf as we use it, for real, on this machine's loopback."""

from __future__ import annotations

import gc
import logging
import secrets
import time
from collections.abc import Callable
from typing import TypeVar

import pytest
import trio

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.model.address import Address
from aemesh.model.trust import Role
from aemesh.net.interfaces import LocalAddress
from aemesh.net.mdns import Browser, _check_version, open_mdns
from aemesh.net.sighting import Gone, Heard

LOOPBACK = (LocalAddress("lo", "127.0.0.1"),)
HEARD_WITHIN = 5.0

_E = TypeVar("_E", Heard, Gone)


def new_instance() -> str:
    # Others on this machine announce on loopback too.
    return f"aemesh-test-{secrets.token_hex(8)}"


async def next_of(browser: Browser, instance: str, kind: type[_E]) -> _E:
    with trio.fail_after(HEARD_WITHIN):
        while True:
            event = await browser.receive()
            if isinstance(event, kind) and event.instance == instance:
                return event


async def test_an_instance_is_heard_with_its_txt_and_then_gone() -> None:
    instance = new_instance()
    async with (
        open_mdns(LOOPBACK) as listener,
        listener.browse(Role.WORKER) as browser,
    ):
        async with open_mdns(LOOPBACK) as speaker:
            await speaker.announce(
                Role.WORKER, instance, port=7472, txt={"v": "1"}, hosts=["127.0.0.1"]
            )
            heard = await next_of(browser, instance, Heard)
        gone = await next_of(browser, instance, Gone)

    assert heard == Heard(
        instance, {b"v": b"1"}, addresses=(Address("127.0.0.1", 7472),)
    )
    assert gone == Gone(instance)


async def test_an_update_is_heard_and_the_old_words_do_not_come_back() -> None:
    instance = new_instance()
    async with (
        open_mdns(LOOPBACK) as speaker,
        open_mdns(LOOPBACK) as listener,
        listener.browse(Role.MASTER) as browser,
    ):
        for number in range(5):
            await speaker.announce(
                Role.MASTER, instance, port=7472, txt={"v": str(number)}, hosts=[]
            )
            while True:
                heard = await next_of(browser, instance, Heard)
                if heard.txt == {b"v": str(number).encode()}:
                    break
        # zeroconf repeats an announcement after 0.225 s and 0.45 s.
        with trio.move_on_after(0.6):
            late = await next_of(browser, instance, Heard)
            assert late.txt == {b"v": b"4"}


async def test_announcing_returns_before_the_repeats() -> None:
    async with open_mdns(LOOPBACK) as mdns:
        began = time.perf_counter()
        await mdns.announce(
            Role.WORKER, new_instance(), port=7472, txt={}, hosts=["127.0.0.1"]
        )
        took = time.perf_counter() - began

    # All three sends take 0.45 s.
    assert took < 0.2


async def test_without_addresses_nothing_is_sent_until_there_are_some() -> None:
    instance = new_instance()
    async with (
        open_mdns(LOOPBACK) as listener,
        listener.browse(Role.WORKER) as browser,
        open_mdns(()) as speaker,
        speaker.browse(Role.WORKER) as deaf,
    ):
        await speaker.announce(
            Role.WORKER, instance, port=7472, txt={"v": "1"}, hosts=()
        )
        assert not speaker.is_open

        await speaker.rebind(LOOPBACK)

        assert speaker.is_open
        await next_of(browser, instance, Heard)
        await next_of(deaf, instance, Heard)


async def test_all_addresses_may_go_and_come_back() -> None:
    instance = new_instance()
    async with (
        open_mdns(LOOPBACK) as listener,
        listener.browse(Role.WORKER) as browser,
        open_mdns(LOOPBACK) as speaker,
    ):
        await speaker.rebind(())
        await speaker.announce(
            Role.WORKER, instance, port=7472, txt={"v": "1"}, hosts=()
        )
        await speaker.rebind(LOOPBACK)

        await next_of(browser, instance, Heard)


# zeroconf leaves the socket it has opened so far to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_addresses_that_are_not_ours_are_told_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    nowhere = (LocalAddress("eth9", "10.255.255.254"), LocalAddress("eth9", "fe80::1"))

    with caplog.at_level(logging.WARNING):
        async with open_mdns(nowhere) as mdns:
            await mdns.announce(Role.WORKER, new_instance(), port=1, txt={}, hosts=())
            assert not mdns.is_open
            await mdns.rebind(LOOPBACK)
            await mdns.announce(Role.WORKER, new_instance(), port=1, txt={}, hosts=())
            assert mdns.is_open
    gc.collect()

    assert "multicast DNS" in caplog.text


async def test_a_slow_reader_holds_a_bounded_queue_and_wanted_names_survive() -> None:
    wanted = new_instance()
    crowd = [new_instance() for _ in range(limits.MDNS_EVENTS_WAITING + 50)]
    async with (
        open_mdns(LOOPBACK) as speaker,
        open_mdns(LOOPBACK) as listener,
        listener.browse(Role.MASTER, wanted=lambda: frozenset((wanted,))) as browser,
    ):
        for instance in crowd:
            await speaker.announce(
                Role.MASTER, instance, port=1, txt={"v": "1"}, hosts=()
            )
        await speaker.announce(Role.MASTER, wanted, port=1, txt={"v": "1"}, hosts=())
        full = f"{limits.MDNS_EVENTS_WAITING + 1} waiting"
        await until(lambda: full in repr(browser))
        assert browser.dropped >= 50

        first = await browser.receive()

        assert first.instance == wanted


async def test_a_cancelled_announcement_leaves_the_rest_usable() -> None:
    instance = new_instance()
    async with open_mdns(LOOPBACK) as mdns, mdns.browse(Role.WORKER) as browser:
        with trio.CancelScope() as scope:
            scope.cancel()
            await mdns.announce(Role.WORKER, instance, port=1, txt={"v": "1"}, hosts=())

        await mdns.announce(Role.WORKER, instance, port=1, txt={"v": "2"}, hosts=())

        while (await next_of(browser, instance, Heard)).txt != {b"v": b"2"}:
            pass


async def test_the_end_takes_no_longer_than_promised() -> None:
    with trio.CancelScope() as scope:
        async with open_mdns(LOOPBACK) as mdns, mdns.browse(Role.WORKER):
            await mdns.announce(
                Role.WORKER, new_instance(), port=1, txt={"v": "1"}, hosts=()
            )
            began = time.perf_counter()
            scope.cancel()
    took = time.perf_counter() - began

    assert took < limits.GOODBYE_AFTER + 0.5


@pytest.mark.parametrize("text", ["0.39.4", "0.149.16"])
def test_a_zeroconf_with_known_holes_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        _check_version(text)


@pytest.mark.parametrize("text", ["0.150.0", "0.154.0", "1.0"])
def test_a_later_zeroconf_is_taken(text: str) -> None:
    _check_version(text)


async def until(is_true: Callable[[], bool]) -> None:
    with trio.fail_after(HEARD_WITHIN):
        while not is_true():
            await trio.sleep(0.01)
