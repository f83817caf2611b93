"""The lab: real hosts on one machine, for tests and demonstrations.

Each host is a set of kernel namespaces on one Ethernet: it has addresses (IPv4 and
IPv6), a name, a home, an ordinary user, its own /tmp, /run and shared memory.  What
runs there is a real process that can be killed, and the wire can be cut, slowed and
made lossy.  No packet leaves the machine, and nothing is made in its own network.

    async with open_lab(["laptop", "office-1"]) as lab:
        await lab.host("laptop").run(["ping", "-c1", "office-1"])

Root can build a lab as it is.  Others, and root without rights, come back in a user
namespace: ``python -m aemesh.testing.lab -- pytest -m lab``.
"""

from __future__ import annotations

import argparse
import inspect
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar, overload

import trio

from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_host import Host, Listener
from aemesh.testing.lab_link import BRANCH, OFFICE, Segment, ports_of, set_rules
from aemesh.testing.lab_namespaces import build, run_tool
from aemesh.testing.lab_needs import can_build, program
from aemesh.testing.lab_sweep import KILLED_AFTER, NETNS, SBIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from aemesh.testing.lab_namespaces import Ground

__all__ = [
    "BRANCH",
    "OFFICE",
    "Host",
    "Lab",
    "LabError",
    "Listener",
    "Segment",
    "open_lab",
    "reexec_in_user_namespace",
    "wait_for",
]

T = TypeVar("T")

# Short beside all that is waited for (tens of ms), long beside a look (under 1 ms).
LOOK_AGAIN_AFTER = 0.01


class Lab:
    """Hosts on one switch; made by ``open_lab``."""

    def __init__(self, ground: Ground) -> None:
        self.name = ground.name
        self.hosts = tuple(Host(ground, seat) for seat in ground.seats)
        self._ground = ground

    def __repr__(self) -> str:
        """Show the lab's name and its hosts."""
        return f"<Lab {self.name}: {', '.join(host.name for host in self.hosts)}>"

    def __iter__(self) -> Iterator[Host]:
        """Go through the hosts in their order."""
        return iter(self.hosts)

    @property
    def folder(self) -> Path:
        """The lab's folder on this machine; the hosts cannot see it as a whole."""
        return self._ground.folder

    def host(self, name: str) -> Host:
        """Return the host of this name."""
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(host.name for host in self.hosts)
        what = f"the lab has no host {name}"
        raise LabError(what, why=f"it has {known}")

    async def partition(self, *parts: Sequence[Host]) -> None:
        """Split the switch: hosts in different parts do not hear each other.

        The hosts do not notice it (their link is up); hosts in no part hear everybody.
        """
        sides = [ports_of(part) for part in parts]
        rules = [
            f"iifname {one} oifname {other} drop"
            for one in sides
            for other in sides
            if one != other
        ]
        await set_rules(self._ground.switch, "bridge split", "forward", rules)

    async def open_branch(self) -> None:
        """Add the second segment, and a router between the two; `Host.move` uses it.

        The router hands on IPv4, as routers of an office do: no multicast.
        """
        switch = self._ground.switch
        batch = f"link add {BRANCH.bridge} type bridge mcast_snooping 0\n" + "".join(
            f"addr add {one.router}/24 dev {one.bridge}\nlink set {one.bridge} up\n"
            for one in (OFFICE, BRANCH)
        )
        argv = ["ip", "-n", switch, "-batch", "-"]
        await trio.to_thread.run_sync(run_tool, argv, batch)
        forward = ["nsenter", f"--net={NETNS / switch}", "--", program("sh"), "-c"]
        forward.append("echo 1 > /proc/sys/net/ipv4/ip_forward")
        await trio.to_thread.run_sync(run_tool, forward)
        for host in self.hosts:
            await host.set_way_out()

    async def hide_branch(self) -> None:
        """Let the router translate addresses, as one at home does (RFC 3022).

        Who is in the branch reaches the office under the router's address; nobody
        reaches the branch.
        """
        office, branch = OFFICE.bridge, BRANCH.bridge
        script = (
            "table ip hidden {\nchain out {\ntype nat hook postrouting priority 100\n"
            f"ip saddr {BRANCH.ipv4_net}.0/24 oifname {office} masquerade\n}}\n"
            "chain gate {\ntype filter hook forward priority 0\n"
            "ct state established,related accept\n"
            f"iifname {office} oifname {branch} reject\n}}\n}}\n"
        )
        space = f"--net={NETNS / self._ground.switch}"
        argv = ["nsenter", space, "--", program("nft"), "-f", "-"]
        await trio.to_thread.run_sync(run_tool, argv, script)

    async def heal(self) -> None:
        """End the partition."""
        await self.partition()


@asynccontextmanager
async def open_lab(names: Sequence[str]) -> AsyncIterator[Lab]:
    """Build a lab with hosts of these names; the block's end takes all of it away.

    Whatever ends the block, an error, a cancellation, Ctrl-C or kill -9 of this
    process, no process, namespace or folder of the lab stays.
    """
    ground = await trio.to_thread.run_sync(build, tuple(names))
    try:
        lab = Lab(ground)
        try:
            yield lab
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(KILLED_AFTER):
                for host in lab.hosts:
                    await host.close()
    finally:
        ground.demolish()


@overload
async def wait_for(
    look: Callable[[], Awaitable[T]], *, within: float, what: str
) -> T: ...


@overload
async def wait_for(look: Callable[[], T], *, within: float, what: str) -> T: ...


async def wait_for(
    look: Callable[[], T | Awaitable[T]], *, within: float, what: str
) -> T:
    """Look again and again until the answer is true, and return it.

    ``what`` completes the sentence "within 5 s there was not …".
    """
    with trio.move_on_after(within):
        while True:
            seen = look()
            answer = await seen if inspect.isawaitable(seen) else seen
            if answer:
                return answer
            await trio.sleep(LOOK_AGAIN_AFTER)
    waited = f"within {within:g} s there was not {what}"
    raise LabError(waited)


def reexec_in_user_namespace() -> None:
    """Return if a lab can be built here; else start this command again where it can.

    For scripts of ordinary users; call it first thing.  In there the user looks like
    root, but has no more rights to files than before.
    """
    if can_build():
        return
    prepare = "mount -t tmpfs -o mode=755 lab /run && ip link set lo up"
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{SBIN}"
    unshare = program("unshare")
    again = [sys.executable, *sys.orig_argv[1:]]
    os.execv(  # noqa: S606
        unshare,
        [
            *(unshare, "-Urnm", "--propagation=private", "--"),
            *(program("sh"), "-c", f'{prepare} && exec "$@"', "lab", *again),
        ],
    )


async def _run_on_first(count: int, argv: Sequence[str]) -> int:
    async with open_lab([f"host-{number}" for number in range(1, count + 1)]) as lab:
        process = await lab.hosts[0].start(argv, stdin=None)
        return await process.wait()


def main() -> None:
    """``python -m aemesh.testing.lab [--hosts N] -- COMMAND``."""
    parser = argparse.ArgumentParser(
        prog="python -m aemesh.testing.lab",
        description="Run COMMAND where labs can be built; or on the first of N hosts.",
    )
    parser.add_argument("--hosts", type=int, default=0, metavar="N")
    parser.add_argument("command", nargs="+", metavar="COMMAND")
    words = parser.parse_args()
    reexec_in_user_namespace()
    if words.hosts:
        sys.exit(trio.run(_run_on_first, words.hosts, words.command))
    sys.exit(subprocess.run(words.command, check=False).returncode)  # noqa: S603


if __name__ == "__main__":
    main()
