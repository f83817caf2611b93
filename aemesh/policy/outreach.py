"""Which masters a worker dials of those that announce themselves.

Anybody on the network can announce a master, a thousand of them in a minute.  So an
announcement makes a worker dial nobody whom it would have to ask its owner about: it
seeks the masters that it knows, and others only where the owner has said beforehand
that whoever proves this or that may have the machine.  What becomes of the meeting is
for `aemesh.policy.trust` to say; a question to the owner is never among it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.model.trust import Mode

if TYPE_CHECKING:
    from aemesh.model.jointoken import JoinToken
    from aemesh.model.key import KeyId
    from aemesh.model.trust import TrustBook
    from aemesh.policy.trust import TrustPolicy


def seeks(
    key_id: KeyId,
    book: TrustBook,
    policy: TrustPolicy,
    *,
    token: JoinToken | None = None,
    now: float = 0.0,
) -> bool:
    """Whether a worker dials a master of this key that it has heard of.

    `token` is the join token that the worker was given; `now` is seconds since 1970.
    """
    if book.is_revoked(key_id) or key_id in policy.declined:
        return False
    if knows(key_id, book, policy):
        return True
    if policy.mode is not Mode.LEAP:
        # Open takes whoever comes; certificates and tickets are judged at the meeting.
        return True
    if policy.by_token:
        return token is not None and token.is_issuer(key_id)
    open_until = policy.enrol_until
    return (
        policy.accept_first
        and not book.is_owned
        and (open_until is None or now <= open_until)
    )


def knows(key_id: KeyId, book: TrustBook, policy: TrustPolicy) -> bool:
    """Whether a master of this key was accepted already, by a file or a flag."""
    return (
        key_id in policy.trusted_keys
        or book.by_key(key_id) is not None
        or book.authorizes(key_id)
    )
