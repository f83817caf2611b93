"""Four words that both sides show at a first meeting, and nobody between can choose.

::

    master -> worker   commitment = SHA-256("aemesh-sas-commit/1" | n_m 16)
    worker -> master   n_w 16
    master -> worker   n_m 16           the worker checks the commitment
    code = the first 40 bits of
           SHA-256("aemesh-sas/1" | fpM 32 | fpW 32 | n_m 16 | n_w 16), as four words

The naive way shows words of the two keys: who stands between makes keys until the
words are the same, 2**40 of them, at its leisure and long before.  Here the words hang
on two nonces as well.  The master's is fixed before the worker's is known, and is
known only after: whoever is between has to choose each of its own before it sees the
one it would have to fit (threat 28).  So it has one guess in 2**40 at each meeting, and
`policy.tries` counts meetings.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

from aemesh.model.words import four_words

if TYPE_CHECKING:
    from aemesh.model.key import KeyId

NONCE_BYTES = 16
COMMITMENT_BYTES = 32

_COMMIT = b"aemesh-sas-commit/1"
_CODE = b"aemesh-sas/1"


def commitment(nonce: bytes) -> bytes:
    """Return what fixes the master's nonce without showing it."""
    return hashlib.sha256(_COMMIT + _sized(nonce)).digest()


def is_commitment(given: bytes, nonce: bytes) -> bool:
    """Whether this is the nonce that `given` has fixed."""
    return hmac.compare_digest(given, commitment(nonce))


def code(
    *, fp_master: KeyId, fp_worker: KeyId, nonce_master: bytes, nonce_worker: bytes
) -> str:
    """Return the four words of a meeting: ``tiger-apple-seven-moon``."""
    nonces = _sized(nonce_master) + _sized(nonce_worker)
    fields = _CODE + fp_master.digest + fp_worker.digest + nonces
    return four_words(hashlib.sha256(fields).digest())


def _sized(nonce: bytes) -> bytes:
    if len(nonce) != NONCE_BYTES:
        msg = f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}"
        raise ValueError(msg)
    return nonce
