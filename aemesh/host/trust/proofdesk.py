"""What a node knows for proofs in a handshake: tokens, and who tried how often."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import AemeshError
from aemesh.host.trust import tokens
from aemesh.model.address import Address
from aemesh.model.trust import (
    Decision,
    Peer,
    Proof,
    Reason,
    TokenProof,
    TrustBook,
    Verdict,
)
from aemesh.policy.tokens import TokenUse
from aemesh.policy.tries import Tries
from aemesh.policy.trust import TrustPolicy, asks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aemesh.model.jointoken import JoinToken
    from aemesh.model.key import KeyId, PublicKey

_log = logging.getLogger(__name__)


class ProofDesk:
    """Serves `aemesh.net.doorman.Proofs` for one node."""

    def __init__(
        self,
        policy: TrustPolicy,
        book: Callable[[], TrustBook],
        *,
        folder: Path | None,
        wall: Callable[[], float],
        token: JoinToken | None = None,
    ) -> None:
        self.policy = policy
        self._book = book
        self._folder = folder
        self._wall = wall
        self._token = token
        self._tries = Tries()
        self._counts: dict[KeyId, int] = {}

    def asks(self, key: PublicKey | None) -> frozenset[Proof]:
        """Return the proofs that we want of, or have for, whoever has this key."""
        token = self._token
        issued = bool(token and key and token.is_issuer(key.key_id))
        return asks(key, self._book(), self.policy, token=issued)

    def join_token(self) -> JoinToken | None:
        """Return the token that we were given."""
        return self._token

    def token_secret(self, token_id: str) -> bytes | None:
        """Return the secret of a token that we gave out, None if there is none."""
        if self._folder is None:
            return None
        return tokens.secret_untrusted(self._folder, token_id)

    def token_proof(self, token_id: str, peer: Peer) -> TokenProof:
        """Spend a token whose secret the peer has proved to know.

        Before the verdicts: of two that come at once with the last use, one is told
        no while it can still hear it.  Who spent it may come again with the same key.
        """
        assert self._folder is not None, "only a node with a folder gives tokens out"
        use = TokenUse(peer.key_id, peer.name, self._wall())
        try:
            record = tokens.spend(self._folder, token_id, use, role=peer.role)
        except tokens.TokenRefusedError as exc:
            return TokenProof(token_id, exc.reason)
        except (AemeshError, OSError) as exc:  # nobody comes in who is not written down
            _log.warning("join token %s cannot be spent: %s", token_id, exc)
            return TokenProof(token_id, Reason.FULL)
        return TokenProof(token_id, terms=record.terms)

    def begin_pairing(self, peer: Peer) -> Verdict | None:
        """Count a meeting with a stranger; return the no if there were too many."""
        count = self._tries.begin(_source(peer), now=self._wall())
        if count is None:
            minutes = limits.PAIRINGS_WITHIN / 60
            told = (
                f"{limits.PAIRINGS} meetings in {minutes:.0f} min that nobody confirmed"
            )
            return Verdict(Decision.NO, Reason.TRIES, told)
        if len(self._counts) >= limits.PENDING_REQUESTS:
            del self._counts[next(iter(self._counts))]
        self._counts[peer.key_id] = count
        return None

    def confirm(self, peer: Peer) -> None:
        """A person, or a line, said yes to this peer: its tries came to something."""
        # Not for anybody who comes from where a stranger came from, too.
        if self._counts.pop(peer.key_id, None) is not None:
            self._tries.confirm(_source(peer))

    def tries(self, key_id: KeyId) -> int:
        """Return which try of its source the present meeting with a key is."""
        return self._counts.get(key_id, 1)


def _source(peer: Peer) -> str:
    return Address.parse_untrusted(peer.address).source
