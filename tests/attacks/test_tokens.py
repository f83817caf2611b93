"""Join tokens under attack: a worker that holds one, the master that issued it, and
who stands between or comes later; the proofs are the real ones, the wire is a call."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from aemesh.host.trust import tokens
from aemesh.host.trust.auditlog import AuditLog
from aemesh.host.trust.tokens import TokenOffer, TokenRefusedError
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    Decision,
    Mode,
    Peer,
    Reason,
    Role,
    TokenProof,
    TrustBook,
    Verdict,
)
from aemesh.policy.tokens import TokenUse
from aemesh.policy.trust import TrustPolicy, judge
from aemesh.protocol.joining import binding, is_proof, proof

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.jointoken import JoinToken

NOW = 1_800_000_000.0


def key(letter: str) -> KeyId:
    return PublicKey(letter.encode() * 32).key_id


MASTER, WORKER, THIEF, RELAY = map(key, "mwtr")


@dataclass
class Issuer:
    """The master's side: what it does when JOIN comes."""

    folder: Path
    key_id: KeyId = MASTER
    nonces: list[bytes] = field(
        default_factory=lambda: [bytes([n]) * 16 for n in range(9)]
    )

    def issue(self, *, count: int = 1) -> JoinToken:
        offer = TokenOffer(valid_after=60.0, count=count)
        return tokens.issue(self.folder, offer, issuer=self.key_id, now=NOW)

    def meet(self, peer: KeyId, nonce: bytes = b"n" * 16) -> bytes:
        """Dial a worker with this key; return B as the master has it."""
        return binding(
            fp_client=self.key_id,
            fp_server=peer,
            nonce_client=self.nonces.pop(),
            nonce_server=nonce,
        )

    def join(
        self, id_: str, given: bytes, bound_to: bytes, peer: KeyId, *, at: float = NOW
    ) -> Reason | None:
        """Judge a JOIN of `peer`; None lets it in."""
        secret = tokens.secret_untrusted(self.folder, id_)
        if secret is None or not is_proof(given, secret, bound_to, Role.WORKER):
            return Reason.TOKEN_UNKNOWN
        try:
            use = TokenUse(peer, NodeName("office-1"), at)
            tokens.spend(self.folder, id_, use, role=Role.WORKER)
        except TokenRefusedError as error:
            return error.reason
        return None


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    return Issuer(tmp_path)


def test_who_holds_a_token_is_let_in(issuer: Issuer):
    """Shows: T6."""
    token = issuer.issue()
    here = issuer.meet(WORKER)

    made = proof(token.secret, here, Role.WORKER)

    assert token.is_issuer(issuer.key_id)
    assert issuer.join(token.id, made, here, WORKER) is None
    assert is_proof(
        proof(token.secret, here, Role.MASTER), token.secret, here, Role.MASTER
    )


def test_a_proof_that_was_seen_is_worth_nothing_later(issuer: Issuer):
    """Threat: 52: replayed, though the token is not spent."""
    token = issuer.issue(count=5)
    here = issuer.meet(WORKER)
    seen = proof(token.secret, here, Role.WORKER)
    assert issuer.join(token.id, seen, here, WORKER) is None

    for thief in (THIEF, WORKER):
        again = issuer.meet(thief)
        assert issuer.join(token.id, seen, again, thief) is Reason.TOKEN_UNKNOWN


def test_a_spent_token_lets_in_its_holder_only(issuer: Issuer):
    """Threat: 52: used from another key."""
    token = issuer.issue()
    for holder, reason in ((WORKER, None), (THIEF, Reason.TOKEN_SPENT), (WORKER, None)):
        here = issuer.meet(holder)
        made = proof(token.secret, here, Role.WORKER)
        assert issuer.join(token.id, made, here, holder) is reason


def test_a_token_that_expired_lets_nobody_in(issuer: Issuer):
    """Threat: 52."""
    token = issuer.issue()
    here = issuer.meet(WORKER)
    made = proof(token.secret, here, Role.WORKER)

    late = issuer.join(token.id, made, here, WORKER, at=NOW + 60.0)

    assert late is Reason.TOKEN_EXPIRED


def test_a_guessed_id_or_secret_is_refused_alike_and_spends_nothing(issuer: Issuer):
    """Threat: 52: the answer does not tell which ids there are."""
    token = issuer.issue()
    here = issuer.meet(THIEF)
    guess = proof(b"g" * 16, here, Role.WORKER)

    ids = (token.id, "zzzzzzzz", "../../etc/passwd", "")

    assert {issuer.join(id_, guess, here, THIEF) for id_ in ids} == {
        Reason.TOKEN_UNKNOWN
    }
    assert tokens.list_tokens(issuer.folder)[0].used_by == ()


def test_a_masters_proof_does_not_come_back_as_a_workers(issuer: Issuer):
    """Threat: 52: for the other role; the master's own proof is reflected."""
    token = issuer.issue()
    here = issuer.meet(THIEF)

    reflected = proof(token.secret, here, Role.MASTER)

    assert issuer.join(token.id, reflected, here, THIEF) is Reason.TOKEN_UNKNOWN


def test_who_relays_both_sides_has_no_proof_for_either(issuer: Issuer):
    """Threat: 53: it copies the nonces, and still both sides have another B."""
    token = issuer.issue()
    nonce_master, nonce_worker = issuer.nonces[-1], b"w" * 16
    at_master = issuer.meet(RELAY, nonce_worker)
    at_worker = binding(
        fp_client=RELAY,
        fp_server=WORKER,
        nonce_client=nonce_master,
        nonce_server=nonce_worker,
    )

    passed_on = proof(token.secret, at_worker, Role.WORKER)
    back = proof(token.secret, at_master, Role.MASTER)

    assert issuer.join(token.id, passed_on, at_master, RELAY) is Reason.TOKEN_UNKNOWN
    assert not is_proof(back, token.secret, at_worker, Role.MASTER)
    # And the worker need not come so far: the relay's key is not the issuer's.
    assert not token.is_issuer(RELAY)
    assert tokens.list_tokens(issuer.folder)[0].used_by == ()


@pytest.mark.parametrize(
    "reason",
    sorted((r for r in Reason if r.value.startswith("token-")), key=lambda r: r.value),
)
def test_a_refused_token_is_a_no_and_not_a_request(reason: Reason, tmp_path: Path):
    """Threat: 52: nobody is asked about who came with a bad token."""
    peer = Peer(
        role=Role.WORKER,
        name=NodeName("office-1"),
        key=PublicKey(b"w" * 32),
        mode=Mode.LEAP,
        address="192.0.2.1:4000",
        token=TokenProof("a2b3c4d5", refused=reason),
    )

    verdict = judge(peer, TrustBook(), TrustPolicy(role=Role.MASTER), now=NOW)

    assert (verdict.decision, verdict.reason) == (Decision.NO, reason)


def test_the_audit_log_has_the_id_and_not_the_secret(issuer: Issuer):
    """Threat: 93."""
    token = issuer.issue()
    peer = Peer(
        role=Role.WORKER,
        name=NodeName("office-1"),
        key=PublicKey(b"w" * 32),
        mode=Mode.LEAP,
        address="192.0.2.1:4000",
        token=TokenProof(token.id),
    )
    verdict = judge(peer, TrustBook(), TrustPolicy(role=Role.MASTER), now=NOW)
    audit = AuditLog(issuer.folder)

    audit.write(peer, verdict, now=NOW)
    # Even a detail that somebody makes of the token itself has no secret.
    audit.write(peer, Verdict(Decision.OK, Reason.TOKEN, repr(token)), now=NOW)

    text = audit.path.read_text()
    assert json.loads(text.splitlines()[0])["detail"] == f"join token {token.id}"
    assert token.secret.hex() not in text
    assert str(token)[-32:] not in text.upper()
