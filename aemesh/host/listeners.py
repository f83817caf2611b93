"""Who listens on a TCP port of this machine: a job, or somebody whose port it is.

A master may reach what its own jobs listen on, and nothing else here: not sshd, not a
database on loopback.  The kernel tells which socket listens (``/proc/net/tcp``) and
which process has it open (proc(5)).
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import TYPE_CHECKING, NamedTuple

from aemesh.host.jobtree import JobTree, find_members
from aemesh.host.processes import all_processes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

# The state of a listening socket, <net/tcp_states.h>.
_LISTEN = "0A"
# Sockets of jobs that were found once; the kernel names each by another number.
_KNOWN = 1024


class Listener(NamedTuple):
    """A listening socket: its number, and where it is bound."""

    inode: int
    host: str


class Listeners:
    """Looks for the listeners of jobs, and remembers those that it found."""

    def __init__(self) -> None:
        self._owners: dict[int, JobTree] = {}  # by the socket's number

    def __repr__(self) -> str:
        return f"<Listeners {len(self._owners)} known>"

    def find(self, trees: Sequence[JobTree], port: int) -> str | None:
        """Return the address at which one of these trees listens on `port`.

        For one that listens everywhere that is loopback.
        """
        listeners = {one.inode: one for one in _listeners(port)}
        for inode in listeners.keys() - self._owners.keys():
            if (tree := _owner(inode, trees)) is not None:
                self._owners[inode] = tree
                if len(self._owners) > _KNOWN:
                    del self._owners[next(iter(self._owners))]
        for inode, one in listeners.items():
            if self._owners.get(inode) in trees:
                return _reached(one.host)
        return None


def _listeners(port: int) -> Iterator[Listener]:
    for name in ("tcp", "tcp6"):
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as file:
                lines = file.readlines()[1:]
        except OSError:  # a kernel without IPv6
            continue
        for line in lines:
            # Number, local, remote, state, ... the socket's number is the tenth.
            fields = line.split()
            host, _, number = fields[1].partition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                yield Listener(int(fields[9]), _host(host))


def _host(text: str) -> str:
    """Return an address that the kernel wrote as words of its own byte order."""
    words = (text[at : at + 8] for at in range(0, len(text), 8))
    raw = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
    ip = ipaddress.ip_address(raw)
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return str(mapped or ip)


def _reached(host: str) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104


def _owner(inode: int, trees: Collection[JobTree]) -> JobTree | None:
    """Return the tree in which a process has this socket open."""
    for tree, members in find_members(trees, all_processes()).items():
        for process in members:
            if any(_has_open(process.pid, inode)):
                return tree
    return None


def _has_open(pid: int, inode: int) -> Iterator[bool]:
    folder = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(folder):
            try:
                yield os.readlink(f"{folder}/{name}") == f"socket:[{inode}]"
            except OSError:  # closed meanwhile
                continue
    except OSError:  # it is gone
        return
