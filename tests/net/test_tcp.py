"""TCP on loopback and the network in memory, held to the same checks."""

from __future__ import annotations

import errno
import logging
import socket
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import SettingsError, UnreachableError
from aemesh.model.address import Address
from aemesh.net.tcp import TcpNetwork, check_ours
from aemesh.testing.checks_network import Pair, check_network
from aemesh.testing.memory_network import MemorySegment


@asynccontextmanager
async def tcp_pair():
    yield Pair(TcpNetwork(), TcpNetwork(), "127.0.0.1")


@asynccontextmanager
async def tcp6_pair():
    yield Pair(TcpNetwork(), TcpNetwork(), "::1")


@asynccontextmanager
async def memory_pair():
    segment = MemorySegment()
    yield Pair(segment.host("192.0.2.1"), segment.host("192.0.2.2"), "192.0.2.2")


async def hang_up(connection):
    await connection.stream.aclose()


async def test_tcp_is_a_network():
    await check_network(tcp_pair)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_tcp_over_ipv6_is_a_network():
    await check_network(tcp6_pair)


async def test_memory_is_a_network(autojump_clock):
    await check_network(memory_pair)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
async def test_one_port_serves_ipv4_and_ipv6(nursery):
    port = await nursery.start(_serve(hang_up, port=0))

    for host in ("127.0.0.1", "::1"):
        connection = await TcpNetwork().dial(Address(host, port))
        assert connection.remote == Address(host, port)
        await connection.stream.aclose()


async def test_a_peer_over_ipv4_is_seen_with_its_ipv4_address(nursery):
    seen = []

    async def look(connection):
        seen.append(connection)
        await connection.stream.aclose()

    port = await nursery.start(_serve(look, port=0))
    connection = await TcpNetwork().dial(Address("127.0.0.1", port))
    await connection.stream.receive_some(1)

    assert seen[0].remote.host == "127.0.0.1"
    assert seen[0].remote.source == "127.0.0.1"
    await connection.stream.aclose()


async def test_the_documented_port_is_taken_if_it_is_free_and_any_other_if_not(
    nursery,
):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"port": 0, "hosts": ("127.0.0.1",), "network": TcpNetwork(prefers=port)}

    first = await nursery.start(_serve(hang_up, **here))
    second = await nursery.start(_serve(hang_up, **here))

    assert first == port
    assert second not in (0, port)


async def test_all_addresses_are_listened_on_at_one_port(nursery):
    hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")

    port = await nursery.start(_serve(hang_up, port=0, hosts=hosts))

    for host in hosts:
        await (await TcpNetwork().dial(Address(host, port))).stream.aclose()
    with pytest.raises(UnreachableError):
        await TcpNetwork().dial(Address("127.0.0.4", port))


async def test_who_is_switched_off_holds_no_connection_for_ever(nursery):
    """It closes nothing, and a forwarded connection has no beat of ours."""
    accepted, taken = trio.open_memory_channel(0)
    port = await nursery.start(
        lambda task_status: TcpNetwork().serve(
            accepted.send, port=0, hosts=("127.0.0.1",), task_status=task_status
        )
    )
    dialled = await TcpNetwork().dial(Address("127.0.0.1", port))

    for connection in (dialled, await taken.receive()):
        sock = connection.stream.socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, tries = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
            )
        )
        assert idle + every * tries <= 60
        await hang_up(connection)


async def test_an_address_that_is_not_ours_is_told_with_the_reason():
    with pytest.raises(SettingsError, match="cannot listen on port 7999") as caught:
        await TcpNetwork().serve(hang_up, port=7999, hosts=("127.0.0.1", "192.0.2.1"))

    assert caught.value.why == "Cannot assign requested address"
    assert "ip addr" in caught.value.hint
    async with trio.open_nursery() as nursery:  # the first one was given back
        await nursery.start(_serve(hang_up, port=7999, hosts=("127.0.0.1",)))
        nursery.cancel_scope.cancel()


async def test_the_reason_of_the_one_attempt_is_told():
    with pytest.raises(UnreachableError) as caught:
        await TcpNetwork().dial(Address("127.0.0.1", 1))

    assert str(caught.value) == "cannot reach 127.0.0.1:1: Connection refused"


async def test_who_does_not_answer_is_given_up_at_the_deadline(
    monkeypatch, autojump_clock
):
    monkeypatch.setattr(trio, "open_tcp_stream", _never)
    start = trio.current_time()

    with pytest.raises(UnreachableError, match="no answer in 3 s"):
        await TcpNetwork().dial(Address("192.0.2.1", 7472))

    assert trio.current_time() - start == limits.DIAL_AFTER


class Sockets(trio.abc.SocketFactory):
    """A listener that breaks as it is told before it hangs."""

    def __init__(self, errors):
        self.errors = errors

    def socket(self, *_):
        return BrokenListener(self.errors)


class BrokenListener(trio.socket.SocketType):
    def __init__(self, errors):
        self.errors = errors

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def setsockopt(self, *_):
        pass

    async def bind(self, _address):
        pass

    def listen(self, _backlog):
        pass

    def getsockname(self):
        return ("127.0.0.1", 7472)

    async def accept(self):
        await trio.lowlevel.checkpoint()
        if self.errors:
            raise OSError(self.errors.pop(), "as it was told")
        await trio.sleep_forever()


async def test_when_descriptors_run_out_it_is_told_once_and_accepting_goes_on(
    autojump_clock, caplog
):
    """Threat: 89."""
    errors = [errno.ECONNABORTED] * 5 + [errno.EMFILE] * 50
    trio.socket.set_custom_socket_factory(Sockets(errors))
    with caplog.at_level(logging.WARNING), trio.move_on_after(60):
        await TcpNetwork().serve(hang_up, port=7472, hosts=("127.0.0.1",))

    assert errors == []
    assert len(caplog.records) == 1


async def test_what_a_cut_host_sends_arrives_when_it_is_plugged_in_again(
    autojump_clock, nursery
):
    segment = MemorySegment()
    near, far = segment.host("192.0.2.1"), segment.host("192.0.2.2")
    accepted = []

    async def keep(connection):
        accepted.append(connection)

    port = await nursery.start(_serve(keep, network=far, port=0))
    connection = await near.dial(Address("192.0.2.2", port))
    await trio.testing.wait_all_tasks_blocked()
    segment.cut.add("192.0.2.2")

    await connection.stream.send_all(b"one ")
    with trio.move_on_after(10) as scope:
        await accepted[0].stream.receive_some(10)
    assert scope.cancelled_caught
    with pytest.raises(UnreachableError):
        await near.dial(Address("192.0.2.2", port))
    segment.cut.clear()
    await connection.stream.send_all(b"two")

    assert await accepted[0].stream.receive_some(10) == b"one two"


async def test_who_waits_at_a_listener_that_ends_is_told(autojump_clock):
    segment = MemorySegment()
    far = segment.host("192.0.2.2")
    async with trio.open_nursery() as nursery:
        port = await nursery.start(_serve(hang_up, network=far, port=0))
        nursery.cancel_scope.cancel()

    with pytest.raises(UnreachableError):
        await segment.host("192.0.2.1").dial(Address("192.0.2.2", port))


def _serve(handler, *, network=None, **options):
    async def serve(*, task_status):
        await (network or TcpNetwork()).serve(
            handler, task_status=task_status, **options
        )

    return serve


async def _never(*_):
    await trio.sleep_forever()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_of_this_machine_passes(host):
    check_ours(host)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "office-1"])
def test_an_address_of_another_machine_is_named(host):
    with pytest.raises(SettingsError, match=f'cannot listen at "{host}"') as caught:
        check_ours(host)

    assert "--host" in (caught.value.hint or "")
