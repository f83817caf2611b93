"""What a join token that we gave out is still good for.

A record is what the issuer keeps of a token, without its secret.  Whether the other
side knows the secret is the protocol's business; whether that lets it in is decided
here, from the record alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Reason, Role, Terms
from aemesh.policy.terms import matches


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Whom a token let in, and when, in seconds since 1970."""

    key_id: KeyId
    name: NodeName
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRecord:
    """A token that we gave out: what it allows, until when, and who used it."""

    id: str
    role: Role  # of who joins by it
    count: int  # how many keys it introduces
    issued_at: float  # seconds since 1970
    expires_at: float
    terms: Terms = field(default_factory=Terms)
    names: tuple[str, ...] = ()  # patterns of names that may join by it; none: any
    used_by: tuple[TokenUse, ...] = ()
    revoked: bool = False

    def is_used_by(self, key_id: KeyId) -> bool:
        """Whether this key has joined by it."""
        return any(use.key_id == key_id for use in self.used_by)


def ended(record: TokenRecord, *, now: float) -> Reason | None:
    """Return why a token introduces nobody any more, or None if it still does."""
    if record.revoked:
        return Reason.REVOKED
    if now >= record.expires_at:
        return Reason.TOKEN_EXPIRED
    if len(record.used_by) >= record.count:
        return Reason.TOKEN_SPENT
    return None


def judge_token(
    record: TokenRecord | None,
    *,
    role: Role,
    key_id: KeyId,
    now: float,
    name: NodeName | None = None,
) -> Reason | None:
    """Return why a token does not let this key in, or None if it does.

    `record` is None for an id that we never gave out.  A key that used the token
    already may again, for its answer may have been lost on the way; it is not counted
    twice.  `name` None leaves the names aside.
    """
    if record is None:
        return Reason.TOKEN_UNKNOWN
    if record.role is not role:
        return Reason.TOKEN_ROLE
    end = ended(record, now=now)
    if end is Reason.TOKEN_SPENT and record.is_used_by(key_id):
        end = None
    if end is None and name is not None and not matches(record.names, name):
        return Reason.TOKEN_NAME
    return end
