"""An announcement in its mDNS form: short TXT keys, signed by the key that it names.

==== ============================================ ======================
key  value                                        longest, bytes
==== ============================================ ======================
v    ``1``                                        1
n    name of the node                             64
k    Ed25519 public key, base64 without padding   43
i    this process, 8 random bytes, base64 as k    11
m    mode: open, leap, token, gss, x509           5
c    cores, decimal                               5
r    memory in MiB, decimal                       8
p    TCP port, decimal                            5
a    addresses, comma between, no scope, no port  112
t    signed at, decimal seconds since 1970        10
x    expires at, the same                         10
s    signature, base64 without padding            86
==== ============================================ ======================

What is signed: ``"aemesh-announce/1" LF``, then each of these with its length (u16, big
endian) in front: the service type (``_aemesh-worker._tcp``), the instance name, and
the values of v n k i m c r p a t x as they stand in TXT.

The instance name is ``aemesh-`` and the label of the key, so nobody else can own it
and it needs no probing.  All that matters is in TXT: forged SRV, A and AAAA records
change nothing.  `i` is new each time a node starts: one key with two of them at one
time is in two places (`aemesh.policy.clones`).  Every number and address has one
spelling, and keys that are not in the table are ignored.  Nothing secret is said,
and no name of a user.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from typing import TYPE_CHECKING

from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey

from aemesh import limits
from aemesh.errors import BadMessage, BugError, quoted
from aemesh.model.address import Address
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.machine import Announcement, Claims
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import Mode, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

VERSION = "1"
_LABEL = b"aemesh-announce/1\n"
_PREFIX = "aemesh-"
_SIGNED = "vnkimcrpatx"
_MIB = 1024 * 1024
_PUBLIC_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_RUN_BYTES = 8
_NAME_BYTES = 64
# Longest decimals; a longer one is nonsense, and big integers are slow to read.
_DIGITS = {"c": 5, "r": 8, "p": 5, "t": 13, "x": 10}


def service_type(role: Role) -> str:
    """Return the DNS-SD service type under which nodes of this role are found."""
    return f"_aemesh-{role.value}._tcp"


def instance_name(key_id: KeyId) -> str:
    """Return the one instance name that a key may announce itself by."""
    return _PREFIX + key_id.label


def announced_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Return the addresses that fit into an announcement, in the order they go there.

    Private IPv4 first, then ULA, then link-local (without scope), loopback, any others;
    one that does not fit is left out, a shorter one behind it may still do.
    """
    hosts = ((one.host.partition("%")[0], one.port) for one in addresses)
    bare = {Address(host, port) for host, port in hosts if _is_plain(host)}
    chosen: list[Address] = []
    room = limits.ANNOUNCED_ADDRESSES_BYTES
    for address in sorted(bare, key=_rank):
        if len(chosen) < limits.ANNOUNCED_ADDRESSES and len(address.host) <= room:
            chosen.append(address)
            room -= len(address.host) + 1
    return tuple(chosen)


def encode(
    announcement: Announcement, *, sign: Callable[[bytes], bytes]
) -> dict[str, str]:
    """Return the TXT entries of an announcement, signed by the key that it names.

    Its addresses must be as `announced_addresses` returns them, all of one port.
    """
    addresses = announcement.addresses
    ports = {address.port for address in addresses}
    run = announcement.run
    if _base64_bytes(run, _RUN_BYTES) is None:
        msg = f"cannot announce a process called {run!r}"
        raise BugError(msg)
    if len(ports) != 1 or announced_addresses(addresses) != addresses:
        msg = f"cannot announce {[str(address) for address in addresses]}"
        raise BugError(msg)
    txt = {
        "v": VERSION,
        "n": announcement.name,
        "k": _base64(announcement.key.raw),
        "i": run,
        "m": announcement.mode.value,
        "c": str(announcement.cores),
        "r": str(announcement.memory // _MIB),
        "p": str(ports.pop()),
        "a": ",".join(address.host for address in addresses),
        "t": str(round(announcement.signed_at * 1000)),  # two within a second differ
        "x": str(announcement.expires_at),
    }
    instance = instance_name(announcement.key.key_id)
    txt["s"] = _base64(sign(signed_bytes(announcement.role, instance, txt)))
    return txt


def signed_bytes(role: Role, instance: str, txt: Mapping[str, str]) -> bytes:
    """Return the bytes that the signature of an announcement is over."""
    parts = (service_type(role), instance, *(txt[key] for key in _SIGNED))
    encoded = (part.encode() for part in parts)
    return _LABEL + b"".join(len(part).to_bytes(2, "big") + part for part in encoded)


def decode_untrusted(
    role: Role, instance: str, txt: Mapping[bytes, bytes | None]
) -> Announcement:
    """Return what a key announced under `instance`; raises `BadMessage`.

    Whether it has expired or was heard before is for `aemesh.policy.discovery`.
    """
    size = txt_bytes(txt)
    if size > limits.TXT_BYTES_UNTRUSTED:
        msg = f"TXT of {size} bytes; the limit is {limits.TXT_BYTES_UNTRUSTED}"
        raise BadMessage(msg)
    fields = {key: _text(txt, key) for key in _SIGNED + "s"}
    if fields["v"] != VERSION:
        msg = f"announcement of version {quoted(fields['v'])}, expected {VERSION}"
        raise BadMessage(msg)
    key = PublicKey(_bytes_of(fields, "k", _PUBLIC_KEY_BYTES))
    if instance != instance_name(key.key_id):
        msg = f"instance {quoted(instance)} does not belong to {key.key_id}"
        raise BadMessage(msg)
    _bytes_of(fields, "i", _RUN_BYTES)
    announcement = _announcement(role, key, fields)
    # Last, for it costs more than all the rest.
    _verify(key, signed_bytes(role, instance, fields), fields)
    return announcement


def claims_untrusted(
    txt: Mapping[bytes, bytes | None], addresses: Iterable[Address] = ()
) -> Claims:
    """Return what TXT that is not believed claims, to be shown; raises nothing.

    `addresses` are those of the SRV, A and AAAA records that came with it.
    """
    name = (txt.get(b"n") or b"")[:_NAME_BYTES].decode("utf-8", "replace")
    try:
        shown = str(node_name_untrusted(name)) if name else ""
    except BadMessage:
        shown = quoted(name)
    raw = _base64_bytes(_shown(txt, b"k"), _PUBLIC_KEY_BYTES)
    both = dict.fromkeys((*_claimed_addresses(txt), *map(str, addresses)))
    return Claims(
        name=shown,
        key_id=None if raw is None else PublicKey(raw).key_id,
        addresses=tuple(both)[: limits.ANNOUNCED_ADDRESSES],
    )


def txt_bytes(txt: Mapping[bytes, bytes | None]) -> int:
    """Return the size of TXT entries on the wire (RFC 6763, section 6.1)."""
    return sum(
        1 + len(key) + (0 if value is None else 1 + len(value))
        for key, value in txt.items()
    )


def _announcement(
    role: Role, key: PublicKey, fields: Mapping[str, str]
) -> Announcement:
    signed_at, expires_at = _number(fields, "t") / 1000, _number(fields, "x")
    if not 0 < expires_at - signed_at <= limits.ANNOUNCEMENT_CAP_AFTER:
        msg = (
            f"announcement from {signed_at} to {expires_at}; it may hold for "
            f"{limits.ANNOUNCEMENT_CAP_AFTER:.0f} s"
        )
        raise BadMessage(msg)
    return Announcement(
        role=role,
        name=node_name_untrusted(fields["n"]),
        key=key,
        mode=_mode(fields["m"]),
        cores=_number(fields, "c"),
        memory=_number(fields, "r") * _MIB,
        addresses=_addresses(fields["a"], _number(fields, "p")),
        signed_at=signed_at,
        expires_at=expires_at,
        run=fields["i"],
    )


def _claimed_addresses(txt: Mapping[bytes, bytes | None]) -> list[str]:
    port = _shown(txt, b"p")
    if not (port.isascii() and port.isdigit() and len(port) <= _DIGITS["p"]):
        return []
    hosts = _shown(txt, b"a").split(",")[: limits.ANNOUNCED_ADDRESSES]
    # Behind a "%" anything may stand, and this is shown to people.
    plain = (host for host in hosts if "%" not in host and _is_plain(host))
    return [str(Address(host, int(port))) for host in plain]


def _shown(txt: Mapping[bytes, bytes | None], key: bytes) -> str:
    value = (txt.get(key) or b"")[: limits.TXT_BYTES]
    return value.decode("ascii", "replace")


def _text(txt: Mapping[bytes, bytes | None], key: str) -> str:
    value = txt.get(key.encode())
    if not value:
        msg = f"announcement without {key}"
        raise BadMessage(msg)
    try:
        return value.decode("ascii")
    except UnicodeDecodeError:
        msg = f"{key} of an announcement is {quoted(repr(value))}, expected ASCII"
        raise BadMessage(msg) from None


def _bytes_of(fields: Mapping[str, str], key: str, length: int) -> bytes:
    raw = _base64_bytes(fields[key], length)
    if raw is None:
        msg = f"{key}={quoted(fields[key])}: expected base64 of {length} bytes"
        raise BadMessage(msg)
    return raw


def _base64_bytes(text: str, length: int) -> bytes | None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == length and _base64(raw) == text else None


def _number(fields: Mapping[str, str], key: str) -> int:
    text = fields[key]
    # `int` also reads "+1", "1_0", "٣" and a gigabyte of digits.
    if len(text) > _DIGITS[key] or not (text.isascii() and text.isdigit()):
        msg = f"{key}={quoted(text)}: expected 1 to {_DIGITS[key]} digits"
        raise BadMessage(msg)
    if text != str(int(text)):
        msg = f"{key}={quoted(text)}: a zero in front"
        raise BadMessage(msg)
    return int(text)


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        msg = f"announcement of unknown mode {quoted(text)}"
        raise BadMessage(msg) from None


def _addresses(text: str, port: int) -> tuple[Address, ...]:
    if not 0 < port < 65536:
        msg = f"announcement of port {port}"
        raise BadMessage(msg)
    hosts = text.split(",")
    if len(hosts) > limits.ANNOUNCED_ADDRESSES or len(set(hosts)) != len(hosts):
        msg = f"addresses {quoted(text)}: expected {limits.ANNOUNCED_ADDRESSES} or less"
        raise BadMessage(msg)
    for host in hosts:
        _check_host(host)
    return tuple(Address(host, port) for host in hosts)


def _check_host(host: str) -> None:
    # A scope is the reader's own: which of its interfaces the other is behind.
    if not _is_plain(host) or "%" in host:
        msg = f"address {quoted(host)}: expected an IP address as usually written"
        raise BadMessage(msg)


def _is_plain(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python's versions do not agree how to write an IPv4-mapped address.
    mapped = ip.version == 6 and ip.ipv4_mapped is not None
    return not mapped and str(ip) == host


def _verify(key: PublicKey, signed: bytes, fields: Mapping[str, str]) -> None:
    signature = _bytes_of(fields, "s", _SIGNATURE_BYTES)
    try:
        VerifyKey(key.raw).verify(signed, signature)
    except BadSignatureError:
        msg = f"announcement in the name of {key.key_id} is not signed by that key"
        raise BadMessage(msg) from None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _rank(address: Address) -> tuple[bool, bool, bool, int, int]:
    ip = ipaddress.ip_address(address.host)
    # `is_private` is also true of loopback and link-local addresses.
    return not ip.is_private, ip.is_loopback, ip.is_link_local, ip.version, int(ip)
