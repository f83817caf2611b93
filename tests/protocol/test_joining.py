"""Proofs of a join token's secret: bound to two keys, one connection and one role."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.key import KeyId
from aemesh.model.trust import Role
from aemesh.protocol.joining import NONCE_BYTES, binding, is_proof, proof

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "proofs.json").read_text()
)

digests = st.binary(min_size=32, max_size=32)
keys = digests.map(KeyId)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)
secrets = st.binary(min_size=16, max_size=16)
roles = st.sampled_from(Role)


def bound(
    client: KeyId, server: KeyId, *, ours: bytes = b"c" * 16, theirs: bytes = b"s" * 16
) -> bytes:
    return binding(
        fp_client=client, fp_server=server, nonce_client=ours, nonce_server=theirs
    )


@pytest.mark.parametrize("vector", VECTORS["joining"], ids=lambda v: v["description"])
def test_vectors(vector: dict[str, dict[str, str]]):
    given_ = {name: bytes.fromhex(text) for name, text in vector["input"].items()}
    # By hand: the tag and the fields, one after the other.
    fields = b"aemesh-bind/1" + b"".join(
        given_[name]
        for name in ("fp_client", "fp_server", "nonce_client", "nonce_server")
    )
    by_hand = hashlib.sha256(fields).digest()
    of_worker = hmac.new(given_["secret"], by_hand + b"worker", "sha256")
    of_master = hmac.new(given_["secret"], by_hand + b"master", "sha256")

    ours = binding(
        fp_client=KeyId(given_["fp_client"]),
        fp_server=KeyId(given_["fp_server"]),
        nonce_client=given_["nonce_client"],
        nonce_server=given_["nonce_server"],
    )

    assert ours.hex() == by_hand.hex() == vector["expect"]["binding"]
    for role, digest in (("worker", of_worker), ("master", of_master)):
        made = proof(given_["secret"], ours, Role(role))
        assert made.hex() == digest.hexdigest() == vector["expect"][role]


@given(secrets, keys, keys, nonces, nonces, roles)
def test_who_knows_the_secret_proves_it_in_its_own_role_only(
    secret, client, server, ours, theirs, role
):
    """Threat: 52: a proof that is sent back proves nothing."""
    here = bound(client, server, ours=ours, theirs=theirs)

    made = proof(secret, here, role)

    assert is_proof(made, secret, here, role)
    assert not is_proof(made, secret, here, role.other)


@given(secrets, secrets, digests, roles)
def test_another_secret_proves_nothing(secret, other, here, role):
    """Threat: 52: a guessed secret."""
    assert is_proof(proof(other, here, role), secret, here, role) == (other == secret)


@given(secrets, keys, keys, nonces, nonces, nonces, roles)
def test_a_proof_is_worth_nothing_in_the_next_connection(
    secret, client, server, ours, theirs, later, role
):
    """Threat: 52: replayed."""
    made = proof(secret, bound(client, server, ours=ours, theirs=theirs), role)

    again = bound(client, server, ours=ours, theirs=later)

    assert is_proof(made, secret, again, role) == (later == theirs)


@given(secrets, st.lists(keys, min_size=3, max_size=3, unique=True), nonces, nonces)
def test_a_proof_that_is_passed_on_by_who_stands_between_does_not_fit(
    secret, three, ours, theirs
):
    """Threat: 53: both keys are in it, even if the relay copies both nonces."""
    worker, master, relay = three
    toward_worker = bound(relay, worker, ours=ours, theirs=theirs)
    toward_master = bound(master, relay, ours=ours, theirs=theirs)

    for role in Role:
        from_worker = proof(secret, toward_worker, role)
        assert not is_proof(from_worker, secret, toward_master, role)
        from_master = proof(secret, toward_master, role)
        assert not is_proof(from_master, secret, toward_worker, role)


@given(st.lists(keys, min_size=2, max_size=2, unique=True), nonces, nonces)
def test_the_two_ends_of_a_connection_are_not_the_same(two, ours, theirs):
    one, other = two

    assert bound(one, other, ours=ours, theirs=theirs) != bound(
        other, one, ours=theirs, theirs=ours
    )


@given(st.binary(max_size=80), secrets, digests, roles)
def test_whatever_is_sent_as_a_proof_is_answered(given_, secret, here, role):
    assert is_proof(given_, secret, here, role) == (given_ == proof(secret, here, role))


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_field_of_another_length_is_not_taken(size: int):
    key = KeyId(bytes(32))

    with pytest.raises(ValueError, match="expected 16 bytes"):
        bound(key, key, ours=bytes(size))
    with pytest.raises(ValueError, match="expected 32 bytes"):
        proof(b"s" * 16, bytes(size + 1), Role.WORKER)
