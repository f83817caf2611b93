"""Whose next key is taken: a table of lines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aemesh.model.key import PublicKey, openssh_key_id_untrusted
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    AuthorizedKey,
    KnownPeer,
    Mode,
    Peer,
    RevokedKey,
    Role,
    TrustBook,
)
from aemesh.policy.rotation import refuses_next, superseded

NOW, NEXT, OTHER = (PublicKey(bytes([n]) * 32) for n in (1, 2, 3))
PEER = Peer(Role.WORKER, NodeName("lab-1"), NOW, Mode.LEAP, "10.0.0.2:7472")
LINE = KnownPeer(NodeName("lab-1"), NOW, via="sas", added="20261120")
AUTHORIZED = AuthorizedKey(NOW.key_id, NOW.openssh)
REVOKED = RevokedKey(openssh_key_id_untrusted(*NEXT.openssh.split()), NEXT.openssh)


@pytest.mark.parametrize("via", ["sas", "tofu", "accept", "flag", "token:abcdefgh"])
def test_what_was_learnt_from_a_peer_may_be_changed_by_it(via):
    book = TrustBook(known=(replace(LINE, via=via),))

    assert refuses_next(PEER, NEXT, book) is None


@pytest.mark.parametrize(
    ("book", "peer", "why"),
    [
        (TrustBook(), PEER, "no line"),
        (TrustBook(known=(replace(LINE, key=OTHER),)), PEER, "no line"),
        (TrustBook(known=(replace(LINE, via="hand"),)), PEER, "by a person"),
        (TrustBook(known=(replace(LINE, via="import"),)), PEER, "by a person"),
        (TrustBook(known=(replace(LINE, via="verified:hand"),)), PEER, "by a person"),
        (TrustBook(known=(LINE,), authorized=(AUTHORIZED,)), PEER, "administrator"),
        (TrustBook(known=(replace(LINE, mode=Mode.X509),)), PEER, "mode x509"),
        (TrustBook(known=(replace(LINE, mode=Mode.GSS),)), PEER, "mode gss"),
        (TrustBook(known=(LINE,)), replace(PEER, mode=Mode.X509), "mode leap"),
        (TrustBook(known=(LINE,), revoked=(REVOKED,)), PEER, "revoked"),
        (
            TrustBook(known=(LINE, replace(LINE, name=NodeName("b"), key=NEXT))),
            PEER,
            "known as b",
        ),
    ],
)
def test_what_somebody_else_wrote_is_not_changed_by_a_peer(book, peer, why):
    """Threat: 30."""
    refusal = refuses_next(peer, NEXT, book)

    assert refusal is not None
    assert why in refusal


def test_the_line_of_the_key_before_goes_when_the_next_one_comes():
    rotated = replace(LINE, key=NEXT)
    book = TrustBook(known=(LINE, rotated))

    assert superseded(replace(PEER, key=NEXT), book) == (LINE,)
    assert superseded(PEER, book) == (), "the present key is still in use"
    assert superseded(replace(PEER, key=OTHER), book) == ()


@pytest.mark.parametrize("via", ["hand", "import", "verified:hand"])
def test_a_line_that_a_person_wrote_does_not_go_with_a_change_of_key(via):
    """Two keys under one name may be an administrator's own way.  Threat: 30."""
    written = replace(LINE, key=OTHER, via=via)
    book = TrustBook(known=(written, LINE, replace(LINE, key=NEXT)))

    assert superseded(replace(PEER, key=NEXT), book) == (LINE,)
