"""The preamble: lengths, counts, and nothing that is read too far."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.protocol.preamble import (
    HEADER_BYTES,
    MAGIC,
    body_length_untrusted,
    chain_untrusted,
    encode_preamble,
    preamble_hash,
)


def header(flags: int = 0, count: int = 1, length: int = 10) -> bytes:
    return MAGIC + bytes((flags, count)) + length.to_bytes(2, "big")


@given(
    st.lists(
        st.binary(min_size=1, max_size=limits.PREAMBLE_CERT_BYTES),
        min_size=1,
        max_size=limits.PREAMBLE_CERTS,
    ).filter(lambda chain: sum(map(len, chain)) + 8 <= limits.PREAMBLE_BYTES)
)
def test_a_chain_comes_back_as_it_went(chain):
    preamble = encode_preamble(tuple(chain))
    head, body = preamble[:HEADER_BYTES], preamble[HEADER_BYTES:]

    assert body_length_untrusted(head) == len(body)
    assert chain_untrusted(head, body) == tuple(chain)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"GET / HTTP/1.1\r\n"[:HEADER_BYTES], "no preamble"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00", "no preamble"),
        (b"AEMESH2\n" + header()[8:], "no preamble"),
        (header()[:-1], "no preamble"),
        (header() + b"\x00", "no preamble"),
        (b"", "no preamble"),
        (header(flags=1), "flags 1, expected 0"),
        (header(count=0), "0 certificates"),
        (header(count=5), "5 certificates"),
        (header(length=65535), "65535 bytes; the limit is 16384"),
        (header(length=16385), "16385 bytes"),
        (header(length=0), "0 bytes"),
        (header(length=2), "2 bytes"),
    ],
)
def test_a_header_that_is_not_ours_is_refused_before_more_is_read(head, words):
    """Threat: 8."""
    with pytest.raises(BadMessage, match=words):
        body_length_untrusted(head)


@pytest.mark.parametrize(
    ("count", "body"),
    [
        (1, b"\x00\x03abcd"),  # a byte behind the last certificate
        (1, b"\x00\x00"),
        (1, b"\x00\x05abcd"),
        (1, b"\x00"),
        (1, b""),
        (2, b"\x00\x03abc"),
        (2, b"\x00\x03abc\x00\x04abc"),
        (1, b"\x00\x03abc\x00\x03abc"),
        (1, (4097).to_bytes(2, "big") + b"x" * 4097),
    ],
)
def test_a_body_that_does_not_fit_its_lengths_is_refused(count, body):
    """Threat: 8."""
    with pytest.raises(BadMessage):
        chain_untrusted(header(count=count, length=len(body)), body)


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_random_bytes_are_a_chain_or_a_bad_message(head, body):
    try:
        length = body_length_untrusted(MAGIC[: len(head) % 9] + head)
        assert 0 < length <= limits.PREAMBLE_BYTES
        chain_untrusted(header(count=len(head) % 4 + 1), body)
    except BadMessage:
        pass


@given(st.integers(1, 4), st.binary(max_size=60))
def test_random_bodies_are_cut_without_a_rest_or_refused(count, body):
    try:
        chain = chain_untrusted(header(count=count, length=len(body)), body)
    except BadMessage:
        return
    assert encode_preamble(chain)[HEADER_BYTES:] == body


def test_both_sides_repeat_the_sha256_of_all_of_it():
    preamble = encode_preamble((b"der",))

    assert preamble_hash(preamble) == hashlib.sha256(preamble).hexdigest()
