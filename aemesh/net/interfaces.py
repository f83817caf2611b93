"""The network interfaces of this machine: which addresses others could reach it by."""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil  # type: ignore[import-untyped]
import trio

from aemesh import limits

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

# Bridges of container and machine emulators: the same addresses on every machine,
# and nobody else behind them.
_INNER = ("br-", "cni", "docker", "flannel", "lxcbr", "podman", "vboxnet", "virbr")
# Linux tells here which IPv6 addresses are still being checked for twins (RFC 4862);
# one cannot bind to them for a second or two.
_IF_INET6 = Path("/proc/net/if_inet6")
_TENTATIVE = 0x40


@dataclass(frozen=True, slots=True, order=True)
class LocalAddress:
    """One address of this machine: IPv6 link-local ones with ``%interface``."""

    interface: str
    host: str

    @property
    def bare(self) -> str:
        """The address without its scope."""
        return self.host.partition("%")[0]


def local_addresses(
    only: Collection[str] | None = None, *, loopback: bool = False
) -> tuple[LocalAddress, ...]:
    """Return the addresses of the interfaces that are up, in a fixed order.

    `only` names the interfaces to look at, all if None.  Inner bridges of container
    engines are left out unless named; loopback is only there if asked for.
    """
    stats = psutil.net_if_stats()
    tentative = _tentative()
    found = [
        LocalAddress(name, host)
        for name, addresses in psutil.net_if_addrs().items()
        if name in stats and stats[name].isup and _is_wanted(name, only)
        for address in addresses
        if (host := _host(name, address.family, address.address)) is not None
        if host.partition("%")[0] not in tentative
        if loopback or not _is_loopback(host)
    ]
    return tuple(sorted(set(found)))


def network_of(host: str) -> str:
    """Return the IPv4 network of an address of ours, in CIDR's form, or ""."""
    found = (
        ipaddress.ip_network(f"{one.address}/{one.netmask}", strict=False)
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family == socket.AF_INET and one.address == host and one.netmask
    )
    return next(map(str, found), "")


def every_host() -> frozenset[str]:
    """Return all addresses of this machine, wherever and in whatever state they are."""
    return frozenset(
        host
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        if (host := _host(name, address.family, address.address)) is not None
    )


def time_since_boot() -> float:
    """Return seconds on a clock that goes on while the machine sleeps, if it has one.

    Not trio's: that stands still meanwhile.  Nobody sets this one by hand.
    """
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class InterfaceWatch:
    """Yields `local_addresses` each time they are not what they were; first at once.

    Also after a sleep of the machine: whoever knew us has given us up, and we may be
    on another network that has the same addresses.
    """

    def __init__(
        self,
        only: Collection[str] | None = None,
        *,
        loopback: bool = False,
        clock: Callable[[], float] = time_since_boot,
    ) -> None:
        self._only = only
        self._loopback = loopback
        self._clock = clock
        self._before: tuple[LocalAddress, ...] | None = None

    def __aiter__(self) -> InterfaceWatch:
        return self

    async def __anext__(self) -> tuple[LocalAddress, ...]:
        while True:
            slept = False
            if self._before is not None:
                looked_at = self._clock()
                await trio.sleep(limits.INTERFACES_EVERY)
                took = self._clock() - looked_at
                slept = took > limits.INTERFACES_EVERY + limits.ASLEEP_AFTER
            # Half a millisecond: not worth a thread.
            now = local_addresses(self._only, loopback=self._loopback)
            if slept or now != self._before:
                self._before = now
                return now


def scope_name(index: str) -> str | None:
    """Return the interface that an address's scope means; None if there is none."""
    if not index.isdigit():
        return index or None
    try:
        return socket.if_indextoname(int(index))
    except OSError:
        return None


def _is_wanted(name: str, only: Collection[str] | None) -> bool:
    return name in only if only is not None else not name.startswith(_INNER)


def _host(interface: str, family: int, text: str) -> str | None:
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    ip = ipaddress.ip_address(text.partition("%")[0])
    scoped = ip.version == 6 and ip.is_link_local
    return f"{ip}%{interface}" if scoped else str(ip)


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


def _tentative() -> frozenset[str]:
    try:
        lines = _IF_INET6.read_text().splitlines()
    except OSError:
        return frozenset()
    rows = [line.split() for line in lines]
    return frozenset(
        str(ipaddress.IPv6Address(int(row[0], 16)))
        for row in rows
        if int(row[4], 16) & _TENTATIVE
    )
