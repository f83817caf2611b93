"""Whether a node may be open: never where strangers of the whole world could come."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from aemesh.errors import OpenRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable


def is_public(host: str) -> bool:
    """Whether an address is neither private nor link-local nor loopback.

    RFC 1918, RFC 4193, RFC 3927; an IPv6 scope (``%eth0``) is passed over.
    """
    ip = ipaddress.ip_address(host.partition("%")[0])
    # Python counts 6to4 and Teredo as private: tunnels, with an end in the internet.
    if getattr(ip, "sixtofour", None) or getattr(ip, "teredo", None):
        return True
    return not (ip.is_private or ip.is_link_local or ip.is_loopback)


def check_open_allowed(hosts: Iterable[str]) -> None:
    """Raise `OpenRefusedError` if one of this machine's addresses is public."""
    for host in hosts:
        if is_public(host):
            raise OpenRefusedError(host)


OPEN_WARNING = (
    "OPEN: nobody is authenticated.  Whoever reaches this port runs programs as you. "
    "For a closed network only, for as long as you look at it."
)
OPEN_WARNING_ROOT = "OPEN AS ROOT: whoever reaches this port owns this machine."
