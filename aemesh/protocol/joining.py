"""What both sides of a connection prove to each other, and that it is about this one.

::

    B      = SHA-256("aemesh-bind/1" | fpC 32 | fpS 32 | nonceC 16 | nonceS 16)
    proof  = HMAC-SHA-256(secret 16, B 32 | role of who proves)

C is who dialled.  The fingerprints are those of the keys that TLS proved, so what
stands between two sides and speaks TLS with each has another B on either side: a
proof that it passes on does not fit (threat 53).  The nonces make B another one in
each connection, so a proof is worth nothing in the next (threat 52).  The role
keeps a proof from being sent back to whom it came from.  Every field before the last
has a fixed length: no two different lists of fields have the same bytes.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.model.trust import Role

NONCE_BYTES = 16
BINDING_BYTES = 32
PROOF_BYTES = 32

_BIND = b"aemesh-bind/1"


def binding(
    *, fp_client: KeyId, fp_server: KeyId, nonce_client: bytes, nonce_server: bytes
) -> bytes:
    """Return what names one connection of two keys: B, the same on both sides.

    The client is who dialled, whatever its role.
    """
    nonces = _sized(nonce_client, NONCE_BYTES) + _sized(nonce_server, NONCE_BYTES)
    fields = _BIND + fp_client.digest + fp_server.digest + nonces
    return hashlib.sha256(fields).digest()


def proof(secret: bytes, bound_to: bytes, role: Role) -> bytes:
    """Return the proof of a side of this role that it knows the secret."""
    fields = _sized(bound_to, BINDING_BYTES) + role.value.encode()
    return hmac.digest(secret, fields, "sha256")


def is_proof(given: bytes, secret: bytes, bound_to: bytes, role: Role) -> bool:
    """Whether a side of this role gave the proof; takes as long for each wrong one."""
    return hmac.compare_digest(given, proof(secret, bound_to, role))


def _sized(field: bytes, size: int) -> bytes:
    if len(field) != size:
        msg = f"expected {size} bytes to prove with, got {len(field)}"
        raise ValueError(msg)
    return field
