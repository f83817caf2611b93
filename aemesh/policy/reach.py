"""Under which address the processes of an engine reach a member."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemesh.model.address import Address


def member_host(remote: Address, announced: Iterable[Address], own: str = "") -> str:
    """Return the host at which a member's processes listen, best for all others.

    It is the member's own address on the link, as it says; where the link goes to may
    be a router's in front of it.  One that says nothing is older, and not behind one.

    But a link may be up at a link-local address (RFC 4291, 2.5.6), whichever side
    dialled first after a cable was mended; that one means something on one interface of
    one machine only.  Then one that the worker announced is taken, IPv4 first, if there
    is any.
    """
    host = _own_untrusted(own)
    if host and not _is_of_one_link(host):
        return str(host)
    if not _is_of_one_link(remote.ip):
        return remote.host
    others = [one for one in announced if not _is_of_one_link(one.ip)]
    best = min(others, key=lambda one: one.ip.version, default=remote)
    return best.host


def _own_untrusted(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a worker said is its own, or None if it is of no use.

    Behind a "%" `ipaddress` takes anything, and addresses are shown to people; what
    needs a scope means nothing to others anyway.
    """
    if "%" in text:
        return None
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return None if ip.is_unspecified or ip.is_multicast else ip


def _is_of_one_link(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.version == 6 and ip.is_link_local
