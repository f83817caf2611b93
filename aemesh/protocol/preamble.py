"""The preamble: what the connecting side says in clear, in front of its ClientHello.

::

    8    magic "AEMESH1" LF
    u8   flags, 0
    u8   number of certificates, 1 to 4
    u16  length of what follows, big endian, at most 16384
    n x  { u16 length, at most 4096; DER }

It lets the server pin the client's certificate inside TLS, and refuse unknown keys
before it spends a handshake on them.  Nothing in it is believed: TLS proves the key,
and HELLO repeats the preamble's hash, so a change on the way is noticed.
"""

from __future__ import annotations

import hashlib

from aemesh import limits
from aemesh.errors import BadMessage

MAGIC = b"AEMESH1\n"
HEADER_BYTES = len(MAGIC) + 4
# What a server may answer in clear, before it closes: a hint for a person who looks,
# never acted upon.
REFUSAL_PREFIX = b"AEMESH-NO "


def encode_preamble(chain: tuple[bytes, ...]) -> bytes:
    """Return the preamble that announces this chain of DER certificates."""
    body = b"".join(len(der).to_bytes(2, "big") + der for der in chain)
    return MAGIC + bytes((0, len(chain))) + len(body).to_bytes(2, "big") + body


def preamble_hash(preamble: bytes) -> str:
    """Return what both sides repeat of the preamble inside TLS."""
    return hashlib.sha256(preamble).hexdigest()


def body_length_untrusted(header: bytes) -> int:
    """Return how many bytes follow the header; raises `BadMessage`."""
    if len(header) != HEADER_BYTES or not header.startswith(MAGIC):
        msg = "no preamble of aemesh"
        raise BadMessage(msg)
    flags, count = header[8], header[9]
    length = int.from_bytes(header[10:12], "big")
    if flags != 0:
        msg = f"preamble flags {flags}, expected 0"
        raise BadMessage(msg)
    if not 1 <= count <= limits.PREAMBLE_CERTS:
        msg = f"{count} certificates in a preamble of 1 to {limits.PREAMBLE_CERTS}"
        raise BadMessage(msg)
    if not count * 3 <= length <= limits.PREAMBLE_BYTES:
        msg = f"a preamble of {length} bytes; the limit is {limits.PREAMBLE_BYTES}"
        raise BadMessage(msg)
    return length


def chain_untrusted(header: bytes, body: bytes) -> tuple[bytes, ...]:
    """Return the DER certificates of a preamble; raises `BadMessage`."""
    if len(body) != int.from_bytes(header[10:12], "big"):
        msg = f"{len(body)} bytes of certificates; the preamble's header says other"
        raise BadMessage(msg)
    chain = []
    at = 0
    for _ in range(header[9]):
        length = int.from_bytes(body[at : at + 2], "big")
        der = body[at + 2 : at + 2 + length]
        if not 0 < length <= limits.PREAMBLE_CERT_BYTES or len(der) != length:
            msg = "a certificate of the preamble is cut or too long"
            raise BadMessage(msg)
        chain.append(der)
        at += 2 + length
    if at != len(body):
        msg = f"{len(body) - at} bytes behind the last certificate of the preamble"
        raise BadMessage(msg)
    return tuple(chain)
