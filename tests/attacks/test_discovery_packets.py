"""Liars on the local network, with real packets: THREATS.md, cases 59 to 64.

On hosts of the lab: a worker, a master that knows it, and a liar that speaks raw DNS.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from aemesh import limits
from aemesh.model.key import KeyId
from aemesh.protocol.announcement import instance_name
from aemesh.testing.lab import Host, open_lab
from aemesh.testing.lab_needs import can_build

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(
        not can_build(), reason="run beneath `python -m aemesh.testing.lab --`"
    ),
]

# Longer than all that is waited for, on a machine that does much else.
TOLD_WITHIN = 20.0

# Announces itself as a known worker does, and prints its fingerprint; `again` on its
# stdin makes it announce afresh.
WORKER = """
import sys, trio
from aemesh.net.discovery import open_discovery
from aemesh.testing.checks_discovery import new_presence
async def main():
    presence, sign = new_presence()
    async with open_discovery() as discovery:
        await discovery.announce(presence, sign=sign)
        print(presence.key.key_id, flush=True)
        async for _ in trio.lowlevel.FdStream(0):
            await discovery.re_announce()
            print("again", flush=True)
trio.run(main)
"""

# A master that knows one worker; prints what it hears, and at the end of each line of
# stdin what it has in its table.
MASTER = """
import json, resource, sys, trio
from aemesh.model.key import KeyId
from aemesh.model.trust import Role
from aemesh.net.discovery import open_discovery
from aemesh.policy.discovery import Sightings
known = KeyId.parse_untrusted(sys.argv[1])
async def listen(stream):
    async for news in stream:
        told = getattr(news, "announcement", None)
        key = told.key.key_id if told else news.key_id
        if key == known:
            print(json.dumps({"news": type(news).__name__}), flush=True)
async def main():
    sightings = Sightings([known])
    async with open_discovery() as discovery:
        async with discovery.browse(Role.WORKER, sightings) as stream:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen, stream)
                async for _ in trio.lowlevel.FdStream(0):
                    sightings.check()
                    usage = resource.getrusage(resource.RUSAGE_SELF)
                    print(json.dumps({
                        "addresses": [str(a) for a in sightings.addresses(known)],
                        "silent": [s.silent for s in sightings.snapshot() if s.known],
                        "unknown": sum(not s.known for s in sightings.snapshot()),
                        "megabytes": usage.ru_maxrss / 1024,
                        "cpu": usage.ru_utime + usage.ru_stime,
                    }), flush=True)
                nursery.cancel_scope.cancel()
trio.run(main)
"""

LIAR = r"""
import random, socket, struct, sys, time
KIND = ("_aemesh-worker", "_tcp", "local")
def name(*labels):
    return b"".join(bytes([len(l)]) + l for l in (l.encode() for l in labels)) + b"\0"
def record(owner, kind, data, ttl=4500, unique=True):
    # 0x8000: "forget what others said of this name"
    head = struct.pack("!HHIH", kind, 0x8001 if unique else 1, ttl, len(data))
    return owner + head + data
def packet(*records):
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)
def text(*entries):
    return b"".join(bytes([len(e)]) + e for e in entries)
def ptr(instance, ttl=4500):
    return record(name(*KIND), 12, name(instance, *KIND), ttl, unique=False)
def txt(instance, data, ttl=4500):
    return record(name(instance, *KIND), 16, data, ttl)
def srv(instance, host, port, ttl=120):
    data = struct.pack("!3H", 0, 0, port) + name(host, "local")
    return record(name(instance, *KIND), 33, data, ttl)
def a(host, ip, ttl=120):
    return record(name(host, "local"), 1, socket.inet_aton(ip), ttl)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
sock.bind(("", 5353))
own = socket.inet_aton(sys.argv[1])
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
def send(data):
    sock.sendto(data, ("224.0.0.251", 5353))
"""


async def test_forged_packets_do_not_move_a_real_worker() -> None:
    """Shows: D2; Threat: 59."""
    lies = """
me = sys.argv[2]
send(packet(srv(me, "liar", 6666), a("liar", "10.77.0.66")))
send(packet(a(me, "10.77.0.66"), ptr(me), srv(me, me, 6666)))
send(packet(ptr(me), txt(me, text(b"v=1", b"a=10.77.0.66", b"p=6666"))))
"""
    async with network(lies) as net:
        before = await net.table()
        await net.lie()
        after = await net.table()

    assert "10.77.0.1:7472" in before["addresses"]
    assert after["addresses"] == before["addresses"]
    assert after["silent"] == [False]


async def test_a_forged_goodbye_packet_is_undone_by_the_next_announcement() -> None:
    """Threat: 60."""
    lies = """
me = sys.argv[2]
send(packet(ptr(me, 0), txt(me, b"\\0", 0), srv(me, me, 1, 0), a(me, "0.0.0.0", 0)))
"""
    async with network(lies) as net:
        before = await net.table()
        await net.lie()
        await net.news("Silent")
        during = await net.table()
        await net.again()
        await net.news("Updated")
        after = await net.table()

    # The worker's own repeats may have brought it back before `again` did.
    assert during["addresses"] == before["addresses"]
    assert after["silent"] == [False]


async def test_a_hundred_thousand_names_in_packets_leave_the_known_worker() -> None:
    """Threat: 61."""
    # Ten names in a packet; 2000 packets a second, more than the browser can read.  The
    # pauses are the pace of the flood; nobody waits for anything by them.
    lies = """
for number in range(0, 100_000, 10):
    names = [f"aemesh-{random.getrandbits(120):030x}" for _ in range(10)]
    send(packet(*(r for n in names for r in (ptr(n), txt(n, text(b"v=1"))))))
    if number % 200 == 0:
        time.sleep(0.01)
"""
    async with network(lies) as net:
        before = await net.table()
        await net.lie()
        after = await net.table()
        await net.again()
        await net.news("Updated")
        last = await net.table()

    assert after["addresses"] == last["addresses"] == before["addresses"]
    assert after["unknown"] <= limits.NAMES_SEEN
    assert last["megabytes"] - before["megabytes"] < 64


async def test_packets_that_break_parsers_do_not_stop_us() -> None:
    """Threat: 63."""
    lies = """
head = struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0)
tail = struct.pack("!HHIH", 12, 1, 120, 2) + b"\\xc0\\x0c"
send(head + b"\\xc0\\x0c" + tail)                      # points at itself
send(head + b"\\xc0\\x0e\\xc0\\x0c" + tail)             # two that point at each other
send(head + b"\\xc0\\xff" + tail)                      # points behind the end
send(head + b"\\xff\\xff" + tail)
steps = b"".join(struct.pack("!H", 0xC000 | 12 + 2 * n) for n in range(4000))
send(head + b"\\0" + steps[:8000])                    # a chain of 4000 pointers
bomb = name("x" * 63, "y" * 63, "z" * 60)
many = b"".join(b"\\xc0\\x0c" + struct.pack("!HHIH", 12, 1, 120, 2) + b"\\xc0\\x0c"
                for _ in range(600))
send(struct.pack("!6H", 0, 0x8400, 0, 65535, 65535, 65535) + bomb + many)
send(b"\\0" * 9000)                                   # larger than any mDNS packet
send(random.Random(1).randbytes(60_000))             # fragments
send(b"")
send(b"\\0" * 11)
for seed in range(3000):
    noise = random.Random(seed)
    send(head + noise.randbytes(noise.randrange(1400)))
    if seed % 100 == 0:
        time.sleep(0.01)
me = sys.argv[2]
whole = packet(ptr(me), txt(me, text(b"v=1")), srv(me, me, 1), a(me, "10.0.0.1"))
for cut in range(len(whole)):
    send(whole[:cut])
"""
    async with network(lies) as net:
        before = await net.table()
        await net.lie()
        await net.again()
        await net.news("Updated")
        after = await net.table()

    assert after["addresses"] == before["addresses"]
    assert after["cpu"] - before["cpu"] < 10


async def test_packets_with_junk_txt_do_not_stop_us() -> None:
    """Threat: 64."""
    lies = """
for me in (sys.argv[2], "aemesh-" + "a" * 26, "\\x1b[2J", "é" * 20):
    long = text(*(b"k%d=" % n + b"v" * 240 for n in range(34)))
    junks = (long, bytes(range(256)) * 8, b"\\xff", b"\\0", b"\\5abc", b"\\1=" * 99)
    for junk in junks:
        send(packet(ptr(me), txt(me, junk)))
"""
    async with network(lies) as net:
        before = await net.table()
        await net.lie()
        await net.again()
        await net.news("Updated")
        after = await net.table()

    assert after["addresses"] == before["addresses"]
    assert after["unknown"] == 0


class Talk:
    """A program that answers a line on its stdin with lines on its stdout."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._rest = b""

    async def say(self) -> None:
        await self._stdin.send_all(b"\n")

    async def line(self) -> str:
        with trio.fail_after(TOLD_WITHIN):
            while b"\n" not in self._rest:
                chunk = await self._stdout.receive_some()
                assert chunk, "the program ended"
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def find(self, key: str, value: str | None = None) -> dict[str, Any]:
        """Return the next line that has this key (and value); others are skipped."""
        while True:
            told: dict[str, Any] = json.loads(await self.line())
            if key in told and value in (None, told[key]):
                return told


class Network:
    """The three programs; made by `network`."""

    def __init__(self, worker: Talk, master: Talk, liar: Host, lie: list[str]) -> None:
        self._worker = worker
        self._master = master
        self._liar = liar
        self._lie = lie

    async def lie(self) -> None:
        """Send the lies; returns when the master has had time to read them."""
        await self._liar.run(self._lie)
        await trio.sleep(0.5)

    async def again(self) -> None:
        """Let the worker announce afresh."""
        await self._worker.say()
        assert await self._worker.line() == "again"

    async def table(self) -> dict[str, Any]:
        """Return what the master has in its table."""
        await self._master.say()
        return await self._master.find("addresses")

    async def news(self, kind: str) -> None:
        """Wait until the master has told such news of the worker."""
        await self._master.find("news", kind)


@asynccontextmanager
async def network(lies: str) -> AsyncIterator[Network]:
    """Build the network; the master has heard of the worker when the block begins."""
    async with open_lab(["office-1", "laptop", "liar"]) as lab:
        office, laptop, liar = lab
        async with talk(office, WORKER) as worker:
            key = await worker.line()
            async with talk(laptop, MASTER, key) as master:
                await master.find("news", "New")
                instance = instance_name(KeyId.parse_untrusted(key))
                lie = [liar.python, "-c", LIAR + lies, liar.ipv4, instance]
                yield Network(worker, master, liar, lie)


@asynccontextmanager
async def talk(host: Host, script: str, *words: str) -> AsyncIterator[Talk]:
    pipe = subprocess.PIPE
    argv = [host.python, "-c", script, *words]
    async with host.open_process(argv, stdin=pipe, stdout=pipe) as process:
        yield Talk(process)
