"""Finding the lines of a book: the first that counts, without going through all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    AuthorizedKey,
    KnownPeer,
    Mode,
    Peer,
    Principal,
    RevokedKey,
    Role,
    Terms,
    TrustBook,
)
from aemesh.policy.trust import TrustPolicy, judge, terms_of

# Few of each, so that a book has the same key, and the same name, more than once.
KEYS = st.integers(1, 4).map(lambda number: PublicKey(bytes([number]) * 32))
NAMES = st.sampled_from("abcd").map(NodeName)
TERMS = st.builds(Terms, groups=st.sampled_from([(), ("A",), ("B",), ("*", "!A")]))


def known(name: str, key: PublicKey, **more: object) -> KnownPeer:
    return replace(KnownPeer(NodeName(name), key, via="tofu", added="20261120"), **more)


BOOKS = st.builds(
    TrustBook,
    known=st.lists(
        st.builds(known, NAMES, KEYS, mode=st.sampled_from(Mode), terms=TERMS)
    ).map(tuple),
    revoked=st.lists(KEYS.map(lambda key: RevokedKey(key.key_id, key.openssh))).map(
        tuple
    ),
    authorized=st.lists(
        st.builds(
            AuthorizedKey,
            key_id=KEYS.map(lambda key: key.key_id),
            openssh=st.just(""),
            terms=TERMS,
            cert_authority=st.booleans(),
        )
    ).map(tuple),
    principals=st.lists(st.builds(Principal, NAMES, TERMS)).map(tuple),
)


def first(lines: Iterator[object]) -> object:
    return next(lines, None)


@given(BOOKS, KEYS, NAMES)
def test_what_is_found_is_what_going_through_all_lines_finds(book, key, name):
    key_id = key.key_id
    ours = [line for line in book.authorized if not line.cert_authority]

    assert book.by_key(key_id) is first(one for one in book.known if one.key == key)
    assert book.by_name(name) is first(one for one in book.known if one.name == name)
    assert book.lines_of(key_id, name) == [
        line for line in book.known if line.key == key or line.name == name
    ]
    assert book.authorized_by_key(key_id) is first(
        line for line in ours if line.key_id == key_id
    )
    assert book.authorizes(key_id) == any(line.key_id == key_id for line in ours)
    assert book.is_revoked(key_id) == any(one.key_id == key_id for one in book.revoked)
    assert book.of_principal(name) == tuple(
        line for line in book.principals if line.name == name
    )
    assert book.keys == {line.key.key_id for line in book.known}


@given(BOOKS, KEYS, NAMES)
def test_a_book_that_was_asked_is_the_same_value_as_before(book, key, name):
    fresh = replace(book)
    looks = repr(book)

    book.by_key(key.key_id)
    book.is_revoked(key.key_id)
    book.authorizes(key.key_id)
    book.of_principal(name)

    assert (book, hash(book), repr(book)) == (fresh, hash(fresh), looks)
    longer = replace(book, known=(*book.known, known("e", key)))
    assert longer.by_name(NodeName("e")) is longer.known[-1]


def test_of_two_lines_of_one_key_the_first_counts() -> None:
    key = PublicKey(bytes(32))
    lines = tuple(known(name, key, terms=Terms(groups=(name,))) for name in "ab")

    assert TrustBook(known=lines).by_key(key.key_id) is lines[0]
    assert TrustBook(known=lines[::-1]).by_key(key.key_id) is lines[1]


class Counted(tuple):  # noqa: SLOT001 - it counts
    """Lines that count how many of them were looked at by going through them."""

    looked_at = 0

    def __iter__(self):
        for line in super().__iter__():
            self.looked_at += 1
            yield line


@pytest.mark.parametrize("mode", [Mode.LEAP, Mode.GSS])
def test_asking_about_every_peer_goes_through_the_lines_once(mode, monkeypatch):
    """A master of a thousand workers asks about all of them for each of its plans."""
    hashed = 0
    of_blob = KeyId.of_blob

    def counting(blob: bytes) -> KeyId:
        nonlocal hashed
        hashed += 1
        return of_blob(blob)

    monkeypatch.setattr(KeyId, "of_blob", counting)
    keys = [PublicKey(number.to_bytes(32, "big")) for number in range(200)]
    lines = Counted(known(f"w{at}", key, mode=mode) for at, key in enumerate(keys))
    book = TrustBook(known=lines)
    policy = TrustPolicy(role=Role.MASTER, mode=mode)

    for _ in range(3):
        for line in tuple.__iter__(lines):
            peer = Peer(
                Role.WORKER,
                line.name,
                line.key,
                mode,
                "192.0.2.7:7472",
                principal="host/w@R",
            )
            judge(peer, book, policy)
            terms_of(peer, book, now=0.0)
            book.is_revoked(peer.key_id)

    assert hashed == len(keys)
    assert lines.looked_at == len(keys)
