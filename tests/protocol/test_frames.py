"""Frames: messages cut out of bytes that come in pieces of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import BadMessage
from aemesh.protocol.frames import HEADER_BYTES, FrameReader, encode_frame

LIMIT = 100


def read_all(reader: FrameReader) -> list[bytes]:
    return list(iter(reader.next_untrusted, None))


@given(
    st.lists(st.binary(max_size=LIMIT), max_size=5),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_a_frame_cut_anywhere_is_heard_once(bodies, cuts):
    stream = b"".join(encode_frame(body, limit=LIMIT) for body in bodies)
    reader = FrameReader(limit=LIMIT)
    heard = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    for start, end in pairwise(edges):
        reader.receive_untrusted(stream[start:end])
        heard += read_all(reader)

    assert heard == bodies
    assert reader.leftover() == b""


def test_a_frame_of_the_limit_is_heard_and_one_more_byte_is_refused():
    reader = FrameReader(limit=LIMIT)
    reader.receive_untrusted(encode_frame(b"x" * LIMIT, limit=LIMIT))
    assert read_all(reader) == [b"x" * LIMIT]

    reader.receive_untrusted((LIMIT + 1).to_bytes(HEADER_BYTES, "big"))
    with pytest.raises(BadMessage, match="101 bytes; the limit is 100"):
        reader.next_untrusted()


def test_a_huge_frame_is_refused_when_its_header_is_read():
    """Threat: 12."""
    reader = FrameReader(limit=LIMIT)
    reader.receive_untrusted(b"\x80\x00\x00")
    assert reader.next_untrusted() is None

    reader.receive_untrusted(b"\x00")
    with pytest.raises(BadMessage, match="2147483648"):
        reader.next_untrusted()


def test_we_never_say_more_than_the_limit():
    with pytest.raises(ValueError, match="the limit is 100"):
        encode_frame(b"x" * (LIMIT + 1), limit=LIMIT)


def test_what_no_frame_was_cut_of_is_handed_on_once():
    reader = FrameReader(limit=LIMIT)
    reader.receive_untrusted(encode_frame(b"one", limit=LIMIT) + b"\x00\x00rest")
    assert reader.next_untrusted() == b"one"

    assert reader.leftover() == b"\x00\x00rest"
    assert reader.leftover() == b""
    assert "0 bytes" in repr(reader)
