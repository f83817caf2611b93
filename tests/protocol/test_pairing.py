"""The four words of a first meeting: the same on both sides, and nobody's choice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.key import KeyId
from aemesh.model.words import WORDS
from aemesh.protocol.pairing import NONCE_BYTES, code, commitment, is_commitment

VECTORS = json.loads(
    (Path(__file__).parent.parent / "vectors" / "proofs.json").read_text()
)

keys = st.binary(min_size=32, max_size=32).map(KeyId)
nonces = st.binary(min_size=NONCE_BYTES, max_size=NONCE_BYTES)


def shown(master: KeyId, worker: KeyId, n_m: bytes, n_w: bytes) -> str:
    return code(fp_master=master, fp_worker=worker, nonce_master=n_m, nonce_worker=n_w)


@pytest.mark.parametrize("vector", VECTORS["pairing"], ids=lambda v: v["description"])
def test_vectors(vector: dict[str, dict[str, str]]):
    given_ = {name: bytes.fromhex(text) for name, text in vector["input"].items()}
    master, worker = given_["fp_master"], given_["fp_worker"]
    n_m, n_w = given_["nonce_master"], given_["nonce_worker"]
    # By hand: 40 bits as text, ten of them choose a word.
    digest = hashlib.sha256(b"aemesh-sas/1" + master + worker + n_m + n_w).digest()
    bits = "".join(f"{byte:08b}" for byte in digest[:5])
    words = "-".join(WORDS[int(bits[at : at + 10], 2)] for at in range(0, 40, 10))
    fixed = hashlib.sha256(b"aemesh-sas-commit/1" + n_m).hexdigest()

    assert commitment(n_m).hex() == fixed == vector["expect"]["commitment"]
    ours = shown(KeyId(master), KeyId(worker), n_m, n_w)
    assert ours == words == vector["expect"]["code"]


@given(nonces, nonces)
def test_a_commitment_fixes_one_nonce(nonce: bytes, other: bytes):
    """Threat: 28: a nonce that was chosen later does not fit."""
    assert is_commitment(commitment(nonce), nonce)
    assert is_commitment(commitment(nonce), other) == (nonce == other)


@given(st.binary(max_size=64), nonces)
def test_whatever_is_sent_as_a_commitment_is_answered(given_: bytes, nonce: bytes):
    assert is_commitment(given_, nonce) == (given_ == commitment(nonce))


@given(st.lists(keys, min_size=3, max_size=3, unique=True), nonces, nonces)
def test_who_stands_between_is_seen_in_the_words(
    three: list[KeyId], n_m: bytes, n_w: bytes
):
    """Threat: 28: its key is in the words of either side."""
    master, worker, between = three

    assert shown(master, between, n_m, n_w) != shown(between, worker, n_m, n_w)
    assert shown(master, worker, n_m, n_w) != shown(worker, master, n_m, n_w)


def test_the_words_are_no_more_alike_than_chance_has_it():
    """Threat: 28: with ten bits of the words a thousand tries meet about once."""
    key, n_m = KeyId(bytes(32)), bytes(16)
    aim = shown(key, key, n_m, bytes(16)).split("-")[0]

    firsts = [
        shown(key, key, n_m, number.to_bytes(16, "big")).split("-")[0]
        for number in range(1, 20 * 1024 + 1)
    ]

    assert 5 <= firsts.count(aim) <= 40
    assert len(set(firsts)) == 1024


@pytest.mark.parametrize("size", [0, 15, 17])
def test_a_nonce_of_another_length_is_not_taken(size: int):
    key = KeyId(bytes(32))

    with pytest.raises(ValueError, match="a nonce has 16 bytes"):
        commitment(bytes(size))
    with pytest.raises(ValueError, match="a nonce has 16 bytes"):
        shown(key, key, bytes(16), bytes(size))
