"""Attacks by number: connections that come to nothing, from one address or many."""

from __future__ import annotations

import logging
import random
import sys
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import AemeshError
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.address import Address
from aemesh.model.machine import Facts
from aemesh.model.trust import Role
from aemesh.net.doorman import DeskDoorman
from aemesh.net.entrance import Door
from aemesh.net.link import open_link
from aemesh.net.shake import Channel
from aemesh.net.tcp import TcpNetwork
from aemesh.net.transport import Connection
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol.hello import Purpose
from aemesh.protocol.preamble import encode_preamble
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.testing.nodes import Node, connection_pair
from aemesh.worker.worker import Parts, Worker

FACTS = Facts(cores=2, memory=8 << 30, python="3.11.2", system="linux-x86_64")
GONE = (OSError, trio.BrokenResourceError, trio.ClosedResourceError)
EVIL = Node.fresh(Role.MASTER, name="evil")
PREAMBLE = encode_preamble((EVIL.identity.certificate,))


class Nobody:
    """Announces a worker to nobody."""

    async def announce(self, facts: Facts, *, port: int) -> None:
        del facts, port
        await trio.sleep_forever()

    def announce_again(self) -> None:
        pass


@dataclass
class Office:
    """A real worker on loopback that trusts one master, and strangers."""

    nursery: trio.Nursery
    master: Node = field(default_factory=lambda: Node.fresh(Role.MASTER))
    worker: Worker = field(init=False)
    address: Address = field(init=False)
    open_streams: list[trio.SocketStream] = field(default_factory=list)

    async def open(self) -> None:
        known = frozenset({self.master.identity.key_id})
        policy = TrustPolicy(role=Role.WORKER, trusted_keys=known)
        desk = TrustDesk(policy, folder=None, wall=lambda: 1.8e9)
        node = Node.fresh(Role.WORKER, doorman=DeskDoorman(desk))
        parts = Parts(
            shaker=node.shaker_for,
            desk=desk,
            network=TcpNetwork(),
            announcer=Nobody(),
            jobs=MemoryJobs(),
            facts=FACTS,
            chance=random.Random(4).random,
            generation=0,
            remember_generation=lambda _: None,
            hosts=("127.0.0.1",),
        )
        self.worker = Worker(parts, key_id=node.identity.key_id)
        port = await self.nursery.start(self._run)
        self.address = Address("127.0.0.1", port)

    async def _run(self, *, task_status):
        await self.worker.run(task_status=task_status)

    async def dial_from(self, source: str) -> trio.SocketStream:
        """Return a connection of a stranger at this address of loopback."""
        sock = trio.socket.socket()
        await sock.bind((source, 0))
        await sock.connect((self.address.host, self.address.port))
        return trio.SocketStream(sock)

    async def honest(
        self, source: str, *, purpose: Purpose = Purpose.CONTROL
    ) -> Channel:
        """Have the master come in from an address; raises when it is not let in."""
        stream = await self.dial_from(source)
        self.open_streams.append(stream)
        connection = Connection(stream, Address(source, 1), self.address)
        channel = await self.master.shaker.connect(
            connection, expected=None, purpose=purpose
        )
        if purpose is Purpose.CONTROL:
            self.nursery.start_soon(self._keep, channel)
        return channel

    async def _keep(self, channel: Channel) -> None:
        """Be a link, with beats."""
        async with open_link(channel, _take) as link:
            await link.wait_closed()

    def check(self) -> None:
        self.worker._door.gate.check()


@asynccontextmanager
async def open_office():
    async with trio.open_nursery() as nursery:
        office = Office(nursery)
        await office.open()
        try:
            with trio.fail_after(30):
                yield office
            office.check()
        finally:
            nursery.cancel_scope.cancel()
            for stream in office.open_streams:
                stream.socket.close()


async def _take(_link, _body):
    """The worker's facts."""


async def until_closed(stream: trio.abc.Stream) -> None:
    with suppress(*GONE):
        while await stream.receive_some(65536):
            pass


def lines(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name.startswith("aemesh")]


async def test_a_crowd_of_strangers_does_not_keep_an_honest_master_out(caplog, capsys):
    """Threat: 87: idle, preamble-only and half-handshake connections, 800 in all."""
    caplog.set_level(logging.INFO)
    says = (b"", PREAMBLE, PREAMBLE + b"\x16\x03\x01\x02\x00\x01")
    async with open_office() as office:
        linked = await office.honest("127.0.0.1")
        for n in range(800):
            stream = await office.dial_from(f"127.0.1.{n % 200 + 1}")
            office.open_streams.append(stream)
            with suppress(*GONE):
                await stream.send_all(says[n % 3])
        office.check()
        assert office.worker._door.gate._inside.total() <= limits.STRANGERS_FULL

        # Whoever has a link comes in at once, whatever the crowd.
        second = await office.honest("127.0.0.1", purpose=Purpose.STREAM)
        # Nor does a master from elsewhere wait for anybody's deadline.
        start = trio.current_time()
        first = await office.honest("127.0.2.1")
        took = trio.current_time() - start
        with capsys.disabled():
            sys.stdout.write(f"\n  in a crowd of 800: {took * 1000:.0f} ms ")

        assert first.peer == linked.peer == second.peer

    told = lines(caplog)
    assert len([s for s in told if "not let in" in s or "came to nothing" in s]) <= (
        limits.STRANGER_LOGS_PER_MINUTE
    )


async def test_a_storm_from_one_address_shuts_out_that_address_alone(caplog):
    """Threat: 88."""
    caplog.set_level(logging.INFO)
    async with open_office() as office:
        for _ in range(200):
            stream = await office.dial_from("127.0.0.9")
            with suppress(*GONE):
                await stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
            await until_closed(stream)
            await stream.aclose()
        with pytest.raises(AemeshError):
            await office.honest("127.0.0.9")

        channel = await office.honest("127.0.0.1")
        assert channel.peer.role is Role.WORKER

    assert len(lines(caplog)) <= limits.STRANGER_LOGS_PER_MINUTE + 5
    assert any("shut out for a while" in line for line in lines(caplog))


async def test_a_source_with_a_trusted_link_is_never_shut_out():
    """Threat: 88: the storm comes from the master's own address."""
    async with open_office() as office:
        await office.honest("127.0.0.1")
        for n in range(150):
            stream = await office.dial_from("127.0.0.1")
            with suppress(*GONE):
                await stream.send_all(b"x" * 12)
            await until_closed(stream)
            await stream.aclose()
            if n % 50 == 0:
                await office.honest("127.0.0.1")

        await office.honest("127.0.0.1")
        assert len(office.worker.links) == 1


async def test_log_lines_about_strangers_are_bounded(caplog, autojump_clock):
    """Threat: 89."""
    caplog.set_level(logging.INFO)
    desk = TrustDesk(TrustPolicy(role=Role.WORKER), folder=None, wall=lambda: 0.0)
    door = Door(desk, chance=lambda: 0.5, linked=lambda _: None)
    _, accepted = connection_pair()

    for minute in range(3):
        for _ in range(2000):
            entry = door.enter(accepted)
            if entry is not None:
                entry.fail("x" * 100)
                entry.done()
        told = lines(caplog)
        assert len(told) <= (minute + 1) * (limits.STRANGER_LOGS_PER_MINUTE + 1)
        await trio.sleep(60)
        door.gate.check()

    assert any("more lines about strangers were left out" in line for line in told)


async def test_what_a_stranger_says_is_one_printable_line_of_the_log(
    caplog, autojump_clock
):
    """Threat: 89."""
    caplog.set_level(logging.INFO)
    desk = TrustDesk(TrustPolicy(role=Role.WORKER), folder=None, wall=lambda: 0.0)
    door = Door(desk, chance=lambda: 0.5, linked=lambda _: None)
    worker = Node.fresh(Role.WORKER)
    dialled, accepted = connection_pair()
    entry = door.enter(accepted)

    await dialled.stream.send_all(b"\x1b[2J\r\nroot logged in\n" * 20)
    with pytest.raises(AemeshError) as caught:
        await worker.shaker_for(entry).accept(accepted)
    entry.fail(str(caught.value))
    entry.done()

    (line,) = lines(caplog)
    assert line.isprintable()
    assert len(line) < 300


async def test_places_are_given_back_whatever_became_of_them(autojump_clock):
    """Threat: 87: also those of whoever waits for a person, or was let in unknown."""
    desk = TrustDesk(
        TrustPolicy(role=Role.WORKER, accept_first=True),
        folder=None,
        wall=lambda: 0.0,
    )
    door = Door(desk, chance=lambda: 0.999, linked=lambda _: None)
    worker = Node.fresh(Role.WORKER)

    async def come(node: Node) -> None:
        dialled, accepted = connection_pair()
        entry = door.enter(accepted)
        if entry is None:
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(quietly, node.shaker.connect, dialled)
            await quietly(worker.shaker_for(entry).accept, accepted)
            entry.done()
            nursery.cancel_scope.cancel()

    async def quietly(function, connection):
        options = {} if function.__name__ == "accept" else {"expected": None}
        with suppress(AemeshError):
            await function(connection, **options)

    async with trio.open_nursery() as nursery:
        for n in range(20):
            nursery.start_soon(come, Node.fresh(Role.MASTER, name=f"desk-{n}"))

    assert repr(door.gate).startswith("<StrangerGate 0 inside")
    assert not door.pending


async def test_waiting_for_a_person_is_for_a_few_at_a_time(autojump_clock):
    """Threat: 29, 87: a stranger with many keys does not fill the room of requests."""
    desk = TrustDesk(TrustPolicy(role=Role.WORKER), folder=None, wall=lambda: 0.0)
    door = Door(desk, chance=lambda: 0.999, linked=lambda _: None)
    worker = Node.fresh(Role.WORKER)
    answers = []

    async def come(number: int) -> None:
        node = Node.fresh(Role.MASTER, name=f"desk-{number}")
        dialled, accepted = connection_pair()
        entry = door.enter(accepted)
        assert entry is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept, entry, accepted)
            try:
                await node.shaker.connect(dialled, expected=None)
            except AemeshError as exc:
                answers.append(str(exc))

    async def accept(entry, connection) -> None:
        with suppress(AemeshError):
            await worker.shaker_for(entry).accept(connection)
        entry.done()

    with trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(limits.PAIRINGS + 3):
                nursery.start_soon(come, number)
                await trio.sleep(1)

    assert len(answers) == 3
    assert all("3 meetings in 10 min that nobody confirmed" in a for a in answers)
