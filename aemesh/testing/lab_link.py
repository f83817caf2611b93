"""A host's link to the switch of the lab, and what can be wrong with it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_namespaces import IPV4_NET, IPV6_NET, run_tool
from aemesh.testing.lab_needs import program
from aemesh.testing.lab_sweep import KILLED_AFTER, NETNS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aemesh.testing.lab_namespaces import Ground, Seat

# An interpreter that starts, on a machine that is busy with something else.
WIRE_UP_WITHIN = 10.0
_WIRE = str(Path(__file__).with_name("lab_wire.py"))


@dataclass(frozen=True, slots=True)
class Segment:
    """One Ethernet of the lab: a bridge, and the first part of its addresses."""

    bridge: str
    ipv4_net: str
    ipv6_net: str

    @property
    def router(self) -> str:
        """The way to the other segment, once there is one."""
        return f"{self.ipv4_net}.254"


OFFICE = Segment("br0", IPV4_NET, IPV6_NET)
# Behind a router, which hands on IPv4 and no multicast.
BRANCH = Segment("br1", "10.78.0", "fd78:")


class Linked:
    """The network side of a host."""

    def __init__(self, ground: Ground, seat: Seat) -> None:
        self.name = seat.name
        self.ipv4 = seat.ipv4
        self.ipv6 = seat.ipv6
        self.port = seat.port
        self.segment = OFFICE
        self._has_router = False
        self._switch = ground.switch
        self._space = seat.mark
        self._wire: trio.Process | None = None

    async def cut(self) -> None:
        """Pull the network cable: the host sees that its link is down."""
        await self._on_switch(f"link set {self.port} down\n")

    async def mend(self) -> None:
        """Plug the cable in again.

        The link is up at once; but who asked for an address in vain meanwhile asks
        again only a second later, as on any Ethernet: wait for what you expect.
        """
        await self._on_switch(f"link set {self.port} up\n")

    async def readdress(self, number: int) -> None:
        """Give the host other addresses, as a new lease does; the old ones are gone."""
        old4, old6 = self.ipv4, self.ipv6
        self.ipv4 = f"{self.segment.ipv4_net}.{number}"
        self.ipv6 = f"{self.segment.ipv6_net}:{number}"
        await self._on_host(
            f"addr del {old4}/24 dev eth0\n"
            f"addr add {self.ipv4}/24 dev eth0\n"
            f"route replace 224.0.0.0/4 dev eth0\n"
        )
        # IPv6 addresses go with the link; who looks for what is gone is told.
        await self._on_host(f"addr del {old6}/64 dev eth0\n", check=False)
        await self._on_host(f"addr add {self.ipv6}/64 dev eth0 nodad\n")
        if self._has_router:
            await self.set_way_out()

    async def move(self, segment: Segment, number: int) -> None:
        """Plug the host in elsewhere: a cable's end, and addresses of that segment.

        Loss, delay and partitions are those of the office's switch.
        """
        await self.cut()
        await self._on_switch(f"link set {self.port} master {segment.bridge}\n")
        self.segment = segment
        await self.mend()
        await self.readdress(number)

    async def set_way_out(self) -> None:
        """Send what goes elsewhere to the router of the segment."""
        self._has_router = True
        await self._on_host(f"route replace default via {self.segment.router}\n")

    async def interface_down(self) -> None:
        """Switch the interface off on the host itself; IPv6 addresses are gone."""
        await self._on_host("link set eth0 down\n")

    async def interface_up(self) -> None:
        """Switch the interface on again, with the addresses of before."""
        await self._on_host(
            f"link set eth0 up\naddr replace {self.ipv6}/64 dev eth0 nodad\n"
        )

    async def loss(self, percent: float) -> None:
        """Lose this share of all frames to the host, and of those from it; 0 ends it.

        A ping is lost twice as often: there and back.
        """
        share = round(percent * 100)
        ends = ports_of([self])
        # nft refuses to compare with what is always true.
        chance = "" if share >= 10000 else f"numgen random mod 10000 < {share} "
        sides = ("iifname", "oifname") if share > 0 else ()
        # On the bridge, not on the host: there a program would be told of the loss.
        await set_rules(
            self._switch,
            f"bridge loss-{self.port}",
            "forward",
            [f"{side} {ends} {chance}drop" for side in sides],
        )

    async def rate(self, megabits: float) -> None:
        """Send no more than this in a second from the host to others; 0 ends it."""
        tc = ["tc", "-n", self._space, "qdisc"]
        if megabits <= 0:
            await trio.to_thread.run_sync(run_tool, [*tc, "del", "dev", "eth0", "root"])
            return
        bucket = ["rate", f"{megabits}mbit", "burst", "64kb", "latency", "200ms"]
        argv = [*tc, "replace", "dev", "eth0", "root", "tbf", *bucket]
        await trio.to_thread.run_sync(run_tool, argv)

    async def delay(self, seconds: float, *, jitter: float = 0.0) -> None:
        """Make each frame to the host and from it later by this; 0 ends it.

        The time of a round trip grows by twice as much.  With ``jitter`` each frame
        takes up to this longer, but none overtakes another.
        """
        if seconds <= 0 and jitter <= 0:
            await self._remove_wire()
            return
        if self._wire is None:
            await self._insert_wire()
        assert self._wire is not None
        assert self._wire.stdin is not None
        assert self._wire.stdout is not None
        await self._wire.stdin.send_all(f"{seconds} {jitter}\n".encode())
        with trio.fail_after(WIRE_UP_WITHIN):
            if not await self._wire.stdout.receive_some():
                what = f"the slow wire of {self.name} did not start"
                raise LabError(what)

    async def firewall(
        self,
        *,
        allow_ports: Collection[int] = (),
        allow_udp: Collection[int] | None = None,
        silent: bool = False,
    ) -> None:
        """Refuse TCP connections from elsewhere, but for some ports; or drop silently.

        UDP comes in as before, unless ``allow_udp`` names the ports that may.  What
        the host itself began goes on.
        """
        rules = [
            "iifname lo accept",
            "ct state established,related accept",
            *_accept("tcp", allow_ports),
            "tcp flags syn / fin,syn,rst,ack "
            + ("drop" if silent else "reject with tcp reset"),
        ]
        if allow_udp is not None:
            rules += _accept("udp", allow_udp)
            rules += ["meta l4proto udp " + ("drop" if silent else "reject")]
        await set_rules(self._space, "inet firewall", "input", rules)

    async def firewall_off(self) -> None:
        """Let everything in again."""
        await set_rules(self._space, "inet firewall", "input", [])

    async def _on_switch(self, batch: str) -> None:
        argv = ["ip", "-n", self._switch, "-batch", "-"]
        await trio.to_thread.run_sync(run_tool, argv, batch)

    async def _on_host(self, batch: str, *, check: bool = True) -> None:
        force = [] if check else ["-force"]
        argv = ["ip", "-n", self._space, *force, "-batch", "-"]
        try:
            await trio.to_thread.run_sync(run_tool, argv, batch)
        except LabError:
            if check:
                raise

    async def _insert_wire(self) -> None:
        """Put our forwarder between the host's port and the bridge."""
        port = self.port
        await self._on_switch(
            f"link add near-{port} type veth peer name far-{port}\n"
            f"link set {port} nomaster\n"
            f"link set near-{port} up\n"
            f"link set far-{port} master {self.segment.bridge} up\n"
        )
        self._wire = await trio.lowlevel.open_process(
            [
                *(program("nsenter"), f"--net={NETNS / self._switch}", "--"),
                *(sys.executable, "-I", "-S", _WIRE, port, f"near-{port}"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    async def _remove_wire(self) -> None:
        if self._wire is None:
            return
        wire, self._wire = self._wire, None
        await end_process(wire)
        await self._on_switch(
            f"link del near-{self.port}\n"
            f"link set {self.port} master {self.segment.bridge}\n"
        )


async def set_rules(space: str, table: str, hook: str, rules: Sequence[str]) -> None:
    """Replace a table of nft rules in a namespace, in one step; none: remove it."""
    script = f"table {table}\ndelete table {table}\n"
    if rules:
        lines = "\n".join(rules)
        script += (
            f"table {table} {{\nchain gate {{\n"
            f"type filter hook {hook} priority 0; policy accept\n"
            f"{lines}\n}}\n}}\n"
        )
    argv = ["nsenter", f"--net={NETNS / space}", "--", program("nft"), "-f", "-"]
    await trio.to_thread.run_sync(run_tool, argv, script)


def ports_of(hosts: Sequence[Linked]) -> str:
    """Return the bridge's side of these hosts, as a set for nft."""
    names = ", ".join(f'"{host.port}", "far-{host.port}"' for host in hosts)
    return f"{{ {names} }}"


async def end_process(process: trio.Process) -> None:
    """Kill a process if it lives, reap it and close its pipes; never cancelled."""
    with trio.CancelScope(shield=True), trio.move_on_after(KILLED_AFTER):
        process.kill()
        await process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                await pipe.aclose()


def _accept(protocol: str, ports: Collection[int]) -> list[str]:
    listed = ", ".join(str(port) for port in ports)
    return [f"{protocol} dport {{ {listed} }} accept"] if listed else []
