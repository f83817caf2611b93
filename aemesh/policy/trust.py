"""Whether to work with a peer: one pure function for both roles and every mode.

The rows of `_RULES` are asked in order; the first that has an opinion decides.  What
TLS and HELLO proved comes in as `Peer`; what the user and the files say comes in as
`TrustPolicy` and `TrustBook`.  Nothing that mDNS said comes in at all (threat 47).

Places kept: tokens and GSS add proofs to `Peer` and a row each above `_first_use`;
X.509 adds a row above `_known`; pairing codes change `via` of an accepted key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.model.trust import (
    Decision,
    Mode,
    Peer,
    Reason,
    Role,
    TrustBook,
    Verdict,
)
from aemesh.policy.openness import is_public


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """What the user asked for when this node was started."""

    role: Role  # ours
    mode: Mode = Mode.LEAP
    trusted_keys: frozenset[KeyId] = frozenset()  # --trust-master, --trust-worker
    accept_first: bool = False  # a worker: imprint on the first master, once
    accept_new: bool = False  # a master: accept unknown workers, unverified
    declined: frozenset[KeyId] = frozenset()  # a person said no in this run


@dataclass(frozen=True, slots=True)
class Case:
    """One question to `judge`."""

    peer: Peer
    book: TrustBook
    policy: TrustPolicy
    expected: KeyId | None = None  # whom we meant to dial


Rule = Callable[[Case], Verdict | None]


def judge(
    peer: Peer, book: TrustBook, policy: TrustPolicy, *, expected: KeyId | None = None
) -> Verdict:
    """Return whether to work with `peer`: ok, pending (a person decides) or no."""
    case = Case(peer, book, policy, expected)
    for rule in _RULES:
        verdict = rule(case)
        if verdict is not None:
            return verdict
    return Verdict(Decision.PENDING, Reason.UNKNOWN, "a person has to accept the key")


def changed_key_message(peer: Peer, book: TrustBook, *, file: str) -> str:
    """Return the loud message about a known name that came with another key."""
    known = book.by_name(peer.name)
    assert known is not None, "only a known name can come with another key"
    forget = f"aemesh trust forget {peer.name}"
    return "\n".join(
        (
            "@" * 60,
            "@    WARNING: REMOTE IDENTIFICATION HAS CHANGED!".ljust(59) + "@",
            "@" * 60,
            f"The {peer.role.value} {peer.name} at {peer.address} came with the key",
            f"    {peer.key_id}  {peer.key_id.words}",
            f"but {file}:{known.line} has for this name",
            f"    {known.key.key_id}  {known.key.key_id.words}",
            "Somebody may stand between, or the machine was set up anew.",
            f"It was refused.  If you know why the key is new: `{forget}`",
        )
    )


def _role(case: Case) -> Verdict | None:
    wanted = case.policy.role.other
    if case.peer.role is wanted:
        return None
    return _no(Reason.ROLE, f"expected a {wanted.value}")


def _expected(case: Case) -> Verdict | None:
    if case.expected in (None, case.peer.key_id):
        return None
    return _no(Reason.EXPECTED_OTHER, f"{case.expected} was dialled")


def _revoked(case: Case) -> Verdict | None:
    if any(r.key == case.peer.key for r in case.book.revoked):
        return _no(Reason.REVOKED, "the key is revoked here")
    return None


def _mode(case: Case) -> Verdict | None:
    ours, theirs = case.policy.mode, case.peer.mode
    if ours is theirs:
        return None
    return _no(Reason.MODE, f"we require {ours.value}, you {theirs.value}")


def _changed(case: Case) -> Verdict | None:
    known = case.book.by_name(case.peer.name)
    if known is None or known.key == case.peer.key:
        return None
    return _no(Reason.KEY_CHANGED, "the name is known with another key")


def _open(case: Case) -> Verdict | None:
    if case.policy.mode is not Mode.OPEN:
        return None
    if is_public(Address.parse_untrusted(case.peer.address).host):
        return _no(Reason.ADDRESS, "open is for private addresses only")
    return Verdict(Decision.OK, Reason.OPEN)


def _known(case: Case) -> Verdict | None:
    if case.book.by_key(case.peer.key_id) is None:
        return None
    return Verdict(Decision.OK, Reason.KNOWN)


def _declined(case: Case) -> Verdict | None:
    if case.peer.key_id not in case.policy.declined:
        return None
    return _no(Reason.DECLINED, "a person said no")


def _given(case: Case) -> Verdict | None:
    if case.peer.key_id not in case.policy.trusted_keys:
        return None
    return Verdict(Decision.OK, Reason.ACCEPTED, "given on the command line")


def _owned(case: Case) -> Verdict | None:
    if case.policy.role is Role.MASTER or not case.book.known:
        return None
    return _no(Reason.OWNED, "this worker belongs to another master")


def _first_use(case: Case) -> Verdict | None:
    policy = case.policy
    allowed = policy.accept_first if policy.role is Role.WORKER else policy.accept_new
    return Verdict(Decision.OK, Reason.FIRST_USE) if allowed else None


# A worker that has a master never comes to `_first_use`: it imprints once.  Who is
# known and was declined was accepted later: nobody is asked about a known key.
_RULES: tuple[Rule, ...] = (
    _role,
    _expected,
    _revoked,
    _mode,
    _changed,
    _known,
    _declined,
    _open,
    _given,
    _owned,
    _first_use,
)


def _no(reason: Reason, detail: str) -> Verdict:
    return Verdict(Decision.NO, reason, detail)
