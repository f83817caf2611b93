"""Whether a certificate chain makes a peer what it says: one pure function.

Chains are verified by `cryptography.x509.verification` (RFC 5280); revocation is
ours, since that library has none.  Nothing here reads a file or a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Decision, Reason, Role, Verdict

if TYPE_CHECKING:
    from aemesh.model.trust import Anchors


@dataclass(frozen=True, slots=True)
class Certified:
    """What a chain proves of its leaf."""

    role: Role
    name: NodeName
    identity: str  # "aemesh://site/role/name", or the DNS name that was taken
    key_id: KeyId  # of the leaf's key
    key_ids: tuple[KeyId, ...]  # of every key in the verified chain, leaf to CA


def verify_untrusted(
    chain: tuple[bytes, ...], anchors: Anchors, *, role: Role, now: float
) -> Certified | Verdict:
    """Return what the chain proves, or the no that says why it proves nothing.

    `chain` is DER, leaf first; `role` is what the peer must be certified as; `now`
    is seconds since 1970.
    """
    del chain, anchors, role, now
    return Verdict(Decision.NO, Reason.CERTIFICATE, "no certificate is taken yet")
