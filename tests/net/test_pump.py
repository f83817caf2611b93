"""Carrying one connection over another: ends, resets, and no more than is taken."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.trust import Role
from aemesh.net.pump import Meter, bared, carry
from aemesh.testing.nodes import Node, shake_hands


async def tcp_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a connection on loopback."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.testing.open_stream_to_socket_listener(listener)
        return near, await listener.accept()


async def test_what_is_sent_either_way_arrives_and_is_counted():
    one, near = trio.testing.memory_stream_pair()
    other, far = trio.testing.memory_stream_pair()
    meter = Meter()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: carry(near, far, meter, first=b"early "))
        await one.send_all(b"ping")
        assert await other.receive_some() == b"ping"
        await other.send_all(b"pong")
        heard = b""
        while heard != b"early pong":
            heard += await one.receive_some()
        assert (meter.open, meter.connections) == (1, 1)
        for end in (one, other):
            await end.send_eof()
    assert (meter.open, meter.bytes) == (0, len(b"ping" + b"pong" + b"early "))


async def test_the_end_of_one_direction_leaves_the_other_open():
    one, near = await tcp_pair()
    other, far = await tcp_pair()
    async with trio.open_nursery() as nursery, one, other:
        nursery.start_soon(carry, near, far, Meter())
        await one.send_eof()
        assert await other.receive_some() == b""

        await other.send_all(b"still here")
        assert await one.receive_some() == b"still here"
        await other.send_eof()
        assert await one.receive_some() == b""


async def test_a_reset_is_passed_on():
    one, near = await tcp_pair()
    other, far = await tcp_pair()
    async with trio.open_nursery() as nursery, other:
        nursery.start_soon(carry, near, far, Meter())
        await one.send_all(b"x")
        assert await other.receive_some() == b"x"
        await other.send_all(b"unread")
        await trio.testing.wait_all_tasks_blocked(0.01)
        await trio.aclose_forcefully(one)  # what was not read becomes a reset

        with pytest.raises(trio.BrokenResourceError):
            await other.receive_some()


async def test_who_is_cut_off_hears_a_reset_and_no_good_end():
    one, near = await tcp_pair()
    other, far = await tcp_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry, near, far, Meter())
        await trio.testing.wait_all_tasks_blocked(0.01)
        nursery.cancel_scope.cancel()
    for end in (one, other):
        async with end:
            with pytest.raises(trio.BrokenResourceError):
                await end.receive_some()


async def test_nothing_is_read_that_the_other_side_does_not_take():
    one, near = await tcp_pair()
    other, far = await tcp_pair()
    sent = 0
    async with trio.open_nursery() as nursery, one, other:
        nursery.start_soon(carry, near, far, Meter())
        with trio.move_on_after(0.5):
            while True:
                await one.send_all(bytes(limits.FORWARD_CHUNK_BYTES))
                sent += limits.FORWARD_CHUNK_BYTES
        # The kernel's own buffers, of three sockets, and one chunk of ours.
        assert sent < 64 << 20
        nursery.cancel_scope.cancel()


async def test_both_ends_of_a_channel_end_tls_and_go_on_below_it():
    client, server = Node.fresh(Role.MASTER), Node.fresh(Role.WORKER)
    dialled, accepted = await shake_hands(client, server, ends=await tcp_pair())
    async with trio.open_nursery() as nursery:
        bare = {}

        async def bring(name, channel):
            bare[name] = await bared(channel)

        nursery.start_soon(bring, "near", dialled)
        nursery.start_soon(bring, "far", accepted)
    (near, first), (far, other_first) = bare["near"], bare["far"]
    assert (first, other_first) == (b"", b"")
    await near.send_all(b"in the clear")
    assert await far.receive_some() == b"in the clear"
    for end in (near, far):
        await end.aclose()


async def test_what_was_said_within_tls_before_its_end_is_no_byte_of_the_port():
    client, server = Node.fresh(Role.MASTER), Node.fresh(Role.WORKER)
    dialled, accepted = await shake_hands(client, server)
    with pytest.raises(BadMessage):
        await bared(dialled, early=b"smuggled")
    for end in (dialled, accepted):
        await trio.aclose_forcefully(end.connection.stream)
