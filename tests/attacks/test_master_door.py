"""Attacks by number on a master that listens: its door is the worker's."""

from __future__ import annotations

import logging
import random
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio

from aemesh import limits
from aemesh.errors import AemeshError, PeerError, RefusedError, UnreachableError
from aemesh.host.ledger.ledger import memory_ledger
from aemesh.host.store import Store, open_store
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.master import Master
from aemesh.master.parts import Parts
from aemesh.model.address import Address
from aemesh.model.trust import Role
from aemesh.net.doorman import DeskDoorman
from aemesh.net.link import open_link
from aemesh.net.shake import Channel
from aemesh.net.tcp import TcpNetwork
from aemesh.net.transport import Connection
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.hello import Purpose
from aemesh.protocol.preamble import encode_preamble
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.testing.nodes import Node

GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
EVIL = Node.fresh(Role.WORKER, name="evil")
PREAMBLE = encode_preamble((EVIL.identity.certificate,))


class Nobody:
    """Hears of no worker."""

    async def news(self):
        await trio.sleep_forever()
        yield


@dataclass
class Desk:
    """A real master on loopback that trusts one worker, and strangers."""

    nursery: trio.Nursery
    store: Store
    worker: Node = field(default_factory=lambda: Node.fresh(Role.WORKER))
    master: Master = field(init=False)
    address: Address = field(init=False)
    streams: list[trio.SocketStream] = field(default_factory=list)

    async def open(self) -> None:
        known = frozenset({self.worker.identity.key_id})
        policy = TrustPolicy(role=Role.MASTER, trusted_keys=known)
        desk = TrustDesk(policy, folder=None, wall=lambda: 1.8e9)
        node = Node.fresh(Role.MASTER, doorman=DeskDoorman(desk))
        self.master = Master(
            Parts(
                key_id=node.identity.key_id,
                name="desk",
                mode="leap",
                version="0",
                state_dir="memory",
                shaker=node.shaker_for,
                desk=desk,
                network=TcpNetwork(),
                finder=Nobody(),
                jobs=MemoryJobs(),
                store=self.store,
                ledger=memory_ledger(wall=lambda: 1.0),
                engines=pytest.fail,  # there is no group
                head_address=lambda: "127.0.0.1",
                wall=lambda: 1.8e9,
                port=_free_port(),
                hosts=("127.0.0.1",),
                chance=random.Random(4).random,
            )
        )
        await self.nursery.start(self.master.run)
        assert self.master.port is not None
        self.address = Address("127.0.0.1", self.master.port)

    async def dial_from(self, source: str) -> trio.SocketStream:
        """Return a connection of somebody at this address of loopback."""
        sock = trio.socket.socket()
        await sock.bind((source, 0))
        await sock.connect((self.address.host, self.address.port))
        stream = trio.SocketStream(sock)
        self.streams.append(stream)
        return stream

    async def come(
        self,
        node: Node,
        source: str = "127.0.0.1",
        *,
        purpose: Purpose = Purpose.CONTROL,
    ) -> Channel:
        """Have a node come in; raises when it is not let in."""
        stream = await self.dial_from(source)
        connection = Connection(stream, Address(source, 1), self.address)
        return await node.shaker.connect(connection, expected=None, purpose=purpose)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@asynccontextmanager
async def open_desk():
    with open_store(None) as store:
        async with trio.open_nursery() as nursery:
            desk = Desk(nursery, store)
            await desk.open()
            try:
                with trio.fail_after(40):
                    yield desk
            finally:
                nursery.cancel_scope.cancel()
                for stream in desk.streams:
                    stream.socket.close()


async def until_closed(stream: trio.abc.Stream) -> None:
    with suppress(*GONE):
        while await stream.receive_some(65536):
            pass


async def was_closed(stream: trio.abc.Stream) -> bool:
    """Whether the other end hangs up, within a time in which it must."""
    with trio.move_on_after(60):
        await until_closed(stream)
        return True
    return False


async def test_a_crowd_of_strangers_keeps_no_worker_out(caplog):
    """Threat: 87: idle, preamble-only and half-handshake connections at a master."""
    caplog.set_level(logging.INFO)
    says = (b"", PREAMBLE, PREAMBLE + b"\x16\x03\x01\x02\x00\x01")
    async with open_desk() as desk:
        for n in range(400):
            stream = await desk.dial_from(f"127.0.1.{n % 200 + 1}")
            with suppress(*GONE):
                await stream.send_all(says[n % 3])

        channel = await desk.come(desk.worker)

        assert channel.peer.role is Role.MASTER
        assert not desk.master.roster.records.keys() - {desk.worker.identity.key_id}
    told = [r.getMessage() for r in caplog.records if r.name.startswith("aemesh")]
    noise = [s for s in told if "not let in" in s or "came to nothing" in s]
    assert len(noise) <= limits.STRANGER_LOGS_PER_MINUTE


async def test_a_storm_shuts_out_its_own_address_and_no_worker_with_a_link():
    """Threat: 88."""
    async with open_desk() as desk:
        channel = await desk.come(desk.worker)
        async with open_link(channel, _take) as link:
            for _ in range(150):
                stream = await desk.dial_from("127.0.0.9")
                with suppress(*GONE):
                    await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
                await until_closed(stream)
            with pytest.raises(AemeshError):
                await desk.come(desk.worker, "127.0.0.9")

            assert link.closed is None
            assert list(desk.master.roster.links) == [desk.worker.identity.key_id]


async def _take(_link, _body):
    """Whatever the master says."""


async def test_a_preamble_that_is_too_long_is_closed_at_its_header():
    """Threat: 8."""
    async with open_desk() as desk:
        stream = await desk.dial_from("127.0.0.1")
        await stream.send_all(b"AEMESH1\n\x00\x01\xff\xff")

        assert await was_closed(stream)
        assert not desk.master.roster.records


async def test_half_a_preamble_and_silence_is_closed_at_the_deadline():
    """Threat: 11."""
    async with open_desk() as desk:
        stream = await desk.dial_from("127.0.0.1")
        await stream.send_all(PREAMBLE[:20])

        with trio.fail_after(10 * limits.PREAMBLE_AFTER):
            assert await was_closed(stream)
        assert not desk.master.roster.records


@pytest.mark.parametrize("name", ["desk", "another"])
async def test_a_master_does_not_come_in_at_a_master(name):
    """Threat: 36, 80: by its role, be its key trusted or not."""
    async with open_desk() as desk:
        other = Node.fresh(Role.MASTER, name=name)

        with pytest.raises((PeerError, RefusedError, UnreachableError)):
            await desk.come(other)

        assert not desk.master.roster.records
        assert not desk.master.roster.links


async def test_a_trusted_workers_key_is_no_masters():
    """Threat: 36: it says master in HELLO."""
    async with open_desk() as desk:
        liar = Node(Role.MASTER, desk.worker.identity, desk.worker.doorman)

        with pytest.raises((PeerError, RefusedError, UnreachableError)):
            await desk.come(liar)

        assert not desk.master.roster.links


async def test_a_worker_that_nobody_trusts_waits_for_a_person_and_gets_nothing():
    """Threat: 22: pending, shown, and no link; the stream it asks for is refused."""
    async with open_desk() as desk:
        with trio.move_on_after(3):
            await desk.come(EVIL)

        (record,) = desk.master.roster.records.values()
        assert record.view().trust == "unknown"
        assert not desk.master.roster.links
        with pytest.raises(AemeshError, match="streams need a link first"):
            await desk.come(EVIL, "127.0.0.7", purpose=Purpose.STREAM)


async def test_a_stream_that_nobody_asked_for_is_closed():
    """Threat: 80: of a linked worker too, whatever it says on it."""
    async with open_desk() as desk:
        channel = await desk.come(desk.worker)
        async with open_link(channel, _take):
            for body in (wire.Dialled(id="0" * 32), wire.Attach(job="A-1")):
                stream = await desk.come(desk.worker, purpose=Purpose.STREAM)
                frame = encode_frame(wire.encode(body), limit=limits.HELLO_BYTES)
                await stream.stream.send_all(frame)

                await until_closed(stream.stream)
            assert desk.worker.identity.key_id in desk.master.roster.links


async def test_a_frame_without_end_on_a_stream_is_refused_at_its_header():
    """Threat: 12."""
    async with open_desk() as desk:
        channel = await desk.come(desk.worker)
        async with open_link(channel, _take) as link:
            stream = await desk.come(desk.worker, purpose=Purpose.STREAM)
            await stream.stream.send_all(b"\x7f\xff\xff\xff")

            assert await was_closed(stream.stream)
            assert link.closed is None  # that of the same worker stays
