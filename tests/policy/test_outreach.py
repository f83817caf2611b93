"""Which masters a worker dials because they announce themselves."""

from __future__ import annotations

import pytest

from aemesh.host.keys.keystore import Identity
from aemesh.model.jointoken import JoinToken
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    AuthorizedKey,
    KnownPeer,
    Mode,
    RevokedKey,
    Role,
    TrustBook,
)
from aemesh.policy.outreach import seeks
from aemesh.policy.trust import TrustPolicy

MASTER = Identity.ephemeral("laptop").public
OTHER = Identity.ephemeral("other").public
KNOWN = KnownPeer(NodeName("laptop"), MASTER, via="prompt", added="20261125")
REVOKED = RevokedKey(MASTER.key_id, MASTER.openssh)
LINE = AuthorizedKey(MASTER.key_id, MASTER.openssh)
CA = AuthorizedKey(MASTER.key_id, MASTER.openssh, cert_authority=True)
TOKEN = JoinToken.of(MASTER.key_id, "abcdefgh", bytes(16))


def policy(**options) -> TrustPolicy:
    return TrustPolicy(role=Role.WORKER, **options)


@pytest.mark.parametrize(
    ("book", "options", "wanted"),
    [
        # In leap of faith a stranger's announcement makes nobody dial, or ask.
        (TrustBook(), {}, False),
        (TrustBook(known=(KNOWN,)), {}, True),
        (TrustBook(authorized=(LINE,)), {}, True),
        (TrustBook(authorized=(CA,)), {}, False),
        (TrustBook(), {"trusted_keys": frozenset({MASTER.key_id})}, True),
        # Who was refused stays refused.
        (TrustBook(known=(KNOWN,), revoked=(REVOKED,)), {}, False),
        (TrustBook(), {"declined": frozenset({MASTER.key_id})}, False),
        (
            TrustBook(revoked=(REVOKED,)),
            {"trusted_keys": frozenset({MASTER.key_id})},
            False,
        ),
        # The owner said beforehand that the first that comes may have it.
        (TrustBook(), {"accept_first": True}, True),
        (TrustBook(), {"accept_first": True, "enrol_until": 100.0}, True),
        (TrustBook(), {"accept_first": True, "enrol_until": 99.0}, False),
        (
            TrustBook(known=(KnownPeer(NodeName("o"), OTHER, via="", added=""),)),
            {"accept_first": True},
            False,
        ),
        (TrustBook(), {"mode": Mode.OPEN}, True),
        (TrustBook(), {"mode": Mode.X509}, True),
        (TrustBook(), {"mode": Mode.GSS}, True),
        (TrustBook(revoked=(REVOKED,)), {"mode": Mode.OPEN}, False),
    ],
)
def test_a_worker_dials_whom_it_need_not_ask_about(book, options, wanted):
    assert seeks(MASTER.key_id, book, policy(**options), now=100.0) is wanted


def test_with_a_token_only_the_master_that_gave_it_out_is_sought():
    by_token = policy(by_token=True)

    assert seeks(MASTER.key_id, TrustBook(), by_token, token=TOKEN)
    assert not seeks(OTHER.key_id, TrustBook(), by_token, token=TOKEN)
    assert not seeks(MASTER.key_id, TrustBook(), by_token)
