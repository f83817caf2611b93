"""Where a node listens: one IP address and one TCP port."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from aemesh.errors import BadMessage, quoted

# A name of DNS or an address; IPv6 in brackets, with a scope or without.
_SEED = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45}(?:%[0-9A-Za-z_.-]{1,16})?)\]"
    r"|(?P<host>[0-9A-Za-z_.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII,
)


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """An IP address in its canonical text (IPv6 with ``%scope`` if link-local)."""

    host: str
    port: int

    def __str__(self) -> str:
        return (
            f"[{self.host}]:{self.port}"
            if ":" in self.host
            else (f"{self.host}:{self.port}")
        )

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        """The address as `ipaddress` knows it."""
        return ipaddress.ip_address(self.host)

    @property
    def source(self) -> str:
        """Whom to count this address with: itself, or its IPv6 /64.

        One host of an IPv6 network has 2**64 addresses at its choice.
        """
        ip = self.ip
        if ip.version == 4:
            return str(ip)
        mapped = ip.ipv4_mapped
        if mapped is not None:
            return str(mapped)
        net = ipaddress.ip_network((int(ip) >> 64 << 64, 64))
        return str(net)

    @classmethod
    def parse_untrusted(cls, text: str) -> Address:
        """Return the address written ``1.2.3.4:5`` or ``[::1]:5``; or `BadMessage`."""
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        try:
            number = int(port) if port.isascii() and port.isdigit() else -1
            ip = ipaddress.ip_address(host)
        except ValueError:
            number, ip = -1, ipaddress.IPv4Address(0)
        # Behind a "%" `ipaddress` takes anything, and addresses are shown to people.
        if not colon or not 0 < number < 65536 or not host.isprintable():
            msg = f"expected ADDRESS:PORT, got {quoted(text)}"
            raise BadMessage(msg)
        return cls(str(ip), number)


@dataclass(frozen=True, slots=True)
class Seed:
    """Where a person said that a master is: a name or an address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse_untrusted(cls, text: str, *, default_port: int) -> Seed:
        """Return what HOST, HOST:PORT or [ADDRESS]:PORT says, or `BadMessage`."""
        found = _SEED.fullmatch(text)
        host = (found["v6"] or found["host"]) if found else ""
        port = int(found["port"] or default_port) if found else 0
        if not found or not 0 < port < 65536:
            msg = f"expected HOST:PORT, got {quoted(text)}"
            raise BadMessage(msg)
        return cls(host, port)
