"""Attacks through forwarded ports: at other services, from strangers, with false yeses.

A worker may be rogue, or a master that was let in, or anybody who sends packets.
"""

from __future__ import annotations

import socket
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh import limits
from aemesh.errors import BadMessage, EngineError, RefusedError, UnreachableError
from aemesh.host.jobs import open_jobs
from aemesh.master.probing import Probes
from aemesh.master.reach import Gate, MemberReach
from aemesh.model.address import Address
from aemesh.model.job import JobSpec
from aemesh.model.key import KeyId
from aemesh.model.machine import Forward
from aemesh.model.names import JobId, NodeName
from aemesh.net.tcp import TcpNetwork
from aemesh.policy.lease import Tenancy
from aemesh.protocol import wire
from aemesh.protocol.strictjson import convert_untrusted
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.testing.memory_network import MemorySegment
from aemesh.worker.held import Held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aemesh.net.transport import Connection

WORKER, DESK, OTHER = (KeyId(bytes([n]) * 32) for n in range(3))
HERE, THERE = "10.0.0.1", "10.0.0.2"
# A job that listens, in a child of a child, says where, and lives on.
LISTENS = """
import os, socket, sys, time
if os.fork():
    os.wait()
os.setsid()
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.create_server((sys.argv[1], 0), family=family) as found:
    print(found.getsockname()[1], flush=True)
    time.sleep(60)
"""


@contextmanager
def service(host: str = "127.0.0.1") -> Iterator[int]:
    """A service of the machine, as sshd or a database is: no job's."""
    with socket.create_server((host, 0)) as found:
        yield found.getsockname()[1]


async def first_line(job) -> bytes:
    async for chunk in job.output():
        return chunk.data
    raise AssertionError


# --- a master that was let in wants at what else listens on the machine ---


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::"])
async def test_only_what_a_job_listens_on_is_reached_wherever_it_hides(
    tmp_path: Path, host: str
) -> None:
    """A port of sshd, of a database on loopback, or of another job is refused."""
    spec = JobSpec(argv=(sys.executable, "-c", LISTENS, host))
    async with open_jobs(tmp_path / "run") as jobs:
        one = await jobs.start(JobId("one"), spec)
        port = int(await first_line(one))
        two = await jobs.start(JobId("two"), spec)
        other = int(await first_line(two))

        expected = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        for _ in range(2):  # found, and remembered
            assert await jobs.listening_at({JobId("one")}, port) == expected
            assert await jobs.listening_at({JobId("one")}, other) is None
        assert await jobs.listening_at(set(), port) is None
        with service() as foreign:
            assert await jobs.listening_at({JobId("one")}, foreign) is None
        await one.end(term_after=0.0)
        with service() as foreign:
            assert await jobs.listening_at({JobId("one")}, foreign) is None


async def test_a_port_is_for_whoever_holds_the_worker_and_in_this_generation() -> None:
    jobs = MemoryJobs()
    held = Held(Tenancy(WORKER), jobs, lambda _: None)
    async with trio.open_nursery() as nursery:
        held.crew = nursery
        await held.handle(DESK, wire.Assign(group="A", generation=1))
        await held.handle(DESK, wire.Start(job="j", generation=1, argv=("sleep",)))
        jobs.listening[5000] = THERE

        good = wire.Forward(generation=1, port=5000)
        assert await held.port_address(DESK, good) == Address(THERE, 5000)
        for master, body in (
            (OTHER, good),
            (DESK, wire.Forward(generation=0, port=5000)),
            (DESK, wire.Forward(generation=2, port=5000)),
            (DESK, wire.Forward(generation=1, port=5432)),
        ):
            with pytest.raises(RefusedError):
                await held.port_address(master, body)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("port", [-1, 0, 22, 631, 1023, 65536, "5000", 5000.5, None])
@pytest.mark.parametrize("kind", [wire.Forward, wire.Probed])
def test_no_message_names_a_privileged_port(kind, port) -> None:
    with pytest.raises(BadMessage):
        convert_untrusted({"generation": 1, "port": port}, kind)


# --- a worker that was let in wants ports of the master, or a false yes ---


def ports_of(
    nursery: trio.Nursery, network, *, link=None, wish: Forward = Forward.YES, **more
) -> MemberReach:
    """The ports of a member, as a master has them."""
    probes = Probes(network, dialable=lambda _: True)

    async def note(ports, at) -> None:
        del ports, at

    async def dial():
        what = "the worker"
        raise UnreachableError(what, why="the test said so")

    options = {
        "dial_stream": dial,
        "is_member": lambda _: True,
        "note": note,
        **more,
    }
    gate = Gate(
        network=network,
        probes=probes,
        host=lambda: HERE,
        carried=trio.CapacityLimiter(limits.FORWARDED_CONNECTIONS),
    )
    return MemberReach(
        name=NodeName("office-1"),
        host=THERE,
        link=link or FakeLink(),
        generation=1,
        wish=wish,
        gate=gate,
        sources=frozenset(),
        tell=lambda _: None,
        wall=lambda: 0.0,
        **options,
    )


class FakeLink:
    """A link that goes on; its worker listens when it is asked to probe, or not."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.connection = type("Connection", (), {"remote": Address(THERE, 7472)})
        self.peer = type("Peer", (), {"name": "office-1"})

    async def request(self, body, kind):
        del body, kind
        return wire.Probed(port=self.port)

    async def wait_closed(self):
        await trio.sleep_forever()


@pytest.mark.parametrize("port", [-5, 0, 22, 1023, 65536, 2**40])
async def test_a_worker_gets_no_privileged_port_and_none_of_its_choice(port) -> None:
    """Where the master listens is the kernel's choice, whatever a node's line says."""
    segment = MemorySegment()
    async with trio.open_nursery() as nursery:
        ports = ports_of(nursery, segment.host(HERE))
        await nursery.start(ports.run)
        with pytest.raises(EngineError):
            await ports.reach(port)
        assert segment.listeners == {}
        assert (await ports.reach(7472)).port != 7472
        nursery.cancel_scope.cancel()


async def test_a_worker_that_names_ports_without_end_has_a_bounded_number() -> None:
    segment = MemorySegment()
    async with trio.open_nursery() as nursery:
        ports = ports_of(nursery, segment.host(HERE))
        await nursery.start(ports.run)
        for port in range(2000, 2000 + 2 * limits.FORWARDED_PORTS):
            await ports.reach(port)
        await trio.testing.wait_all_tasks_blocked()
        assert len(segment.listeners) == limits.FORWARDED_PORTS
        ports.close()
        await trio.testing.wait_all_tasks_blocked()
        assert segment.listeners == {}
        nursery.cancel_scope.cancel()


async def test_who_waits_for_a_port_when_the_lease_ends_is_told() -> None:
    """Not by a bug of the engine's: a worker may leave while its engine comes up."""
    segment, noted, goes_on = MemorySegment(), trio.Event(), trio.Event()

    async def note(ports, at) -> None:
        del ports, at
        noted.set()
        await goes_on.wait()

    async with trio.open_nursery() as nursery:
        ports = ports_of(nursery, segment.host(HERE), note=note)
        await nursery.start(ports.run)
        told: list[str] = []

        async def reach(port: int) -> None:
            with pytest.raises(EngineError) as caught:
                await ports.reach(port)
            told.append(str(caught.value))

        async with trio.open_nursery() as asking:
            asking.start_soon(reach, 5000)
            await noted.wait()
            asking.start_soon(reach, 5001)
            await trio.testing.wait_all_tasks_blocked()
            ports.close()
            await trio.testing.wait_all_tasks_blocked()
            goes_on.set()

        assert all("it serves the group no more" in text for text in told)
        assert segment.listeners == {}


async def test_a_box_that_takes_every_connection_is_not_the_worker(
    autojump_clock,
) -> None:
    """It says nothing, or something; only the word that went over the link counts."""
    segment = MemorySegment()
    for said in (b"", b"0" * 32, b"HTTP/1.1 400 Bad Request\r\n" * 10):

        async def answer(connection: Connection, said: bytes = said) -> None:
            await connection.stream.send_all(said)

        async with trio.open_nursery() as nursery:
            port = await nursery.start(
                lambda task_status, answer=answer: segment.host(THERE).serve(
                    answer, port=0, task_status=task_status
                )
            )
            ports = ports_of(
                nursery,
                segment.host(HERE),
                link=FakeLink(port),
                wish=Forward.AUTO,
            )
            await nursery.start(ports.run)
            assert (await ports.reach(5000)).host == HERE
            assert ports.way is not None
            assert ports.way.forwarded
            nursery.cancel_scope.cancel()


# --- strangers at a forwarded port ---


async def test_strangers_at_a_forwarded_port_are_few_and_members_get_through() -> None:
    """Threat: 87; each would cost the worker a handshake."""
    waits, asked = trio.Event(), []

    async def dial():
        asked.append(trio.current_time())
        await waits.wait()
        what = "the worker"
        raise UnreachableError(what)

    network, members = TcpNetwork(), set()
    async with trio.open_nursery() as nursery:
        ports = ports_of(
            nursery,
            network,
            dial_stream=dial,
            is_member=lambda remote: remote.port in members,
        )
        ports.gate.host = lambda: "127.0.0.1"
        await nursery.start(ports.run)
        at = await ports.reach(5000)
        strangers = [socket.create_connection((at.host, at.port)) for _ in range(50)]
        with trio.fail_after(10):
            while sum(map(is_open, strangers)) > limits.STRANGERS_PER_SOURCE:
                await trio.sleep(0.001)
        assert sum(map(is_open, strangers)) == limits.STRANGERS_PER_SOURCE
        assert len(asked) == 1  # one stranger's at a time

        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            members.add(sock.getsockname()[1])
            sock.connect((at.host, at.port))
            with trio.fail_after(10):
                while len(asked) < 2:
                    await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    for one in strangers:
        one.close()


async def test_connections_that_wait_for_others_to_end_are_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Engines keep idle connections for ever; without a word they seem to hang."""
    segment = MemorySegment()
    async with trio.open_nursery() as nursery:
        ports = ports_of(nursery, segment.host(HERE), dial_stream=trio.sleep_forever)
        ports.gate.carried = trio.CapacityLimiter(2)
        await nursery.start(ports.run)
        at = await ports.reach(5000)
        for count in range(1, 5):
            await segment.host(THERE).dial(at)
            await trio.testing.wait_all_tasks_blocked()
            assert caplog.text.count("more wait") == (count > 2)
        assert ports.gate.carried.statistics().tasks_waiting == 2
        nursery.cancel_scope.cancel()


def is_open(sock: socket.socket) -> bool:
    try:
        sock.recv(1, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


async def test_what_one_connection_meets_ends_no_group(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A bug of ours that a peer can reach is its connection's, and is logged."""

    async def dial():
        raise ZeroDivisionError

    segment = MemorySegment()
    async with trio.open_nursery() as nursery:
        ports = ports_of(nursery, segment.host(HERE), dial_stream=dial)
        await nursery.start(ports.run)
        at = await ports.reach(5000)
        for _ in range(3):
            connection = await segment.host(THERE).dial(at)
            assert await connection.stream.receive_some() == b""
        assert not ports.is_closed
        nursery.cancel_scope.cancel()
    assert caplog.text.count("went wrong") == 3
