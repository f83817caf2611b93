"""The stream of one job: chunks and the exit, cut out of any pieces."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.streams import StreamReader, encode_chunk, encode_exit

chunks = st.builds(Chunk, st.sampled_from(Channel), st.binary(max_size=50))


@given(st.lists(chunks, max_size=5), st.lists(st.integers(0, 300), max_size=5))
def test_a_stream_cut_anywhere_is_heard_once(said, cuts):
    end = JobExit(-9, "released")
    stream = b"".join(map(encode_chunk, said)) + encode_exit(end)
    reader = StreamReader()
    heard: list[Chunk | JobExit] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    for start, stop in pairwise(edges):
        heard += reader.receive_untrusted(stream[start:stop])

    assert heard == [*said, end]


def test_the_largest_chunk_passes():
    chunk = Chunk(Channel.STDOUT, b"x" * limits.CHUNK_BYTES)

    assert StreamReader().receive_untrusted(encode_chunk(chunk)) == [chunk]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x04data",
        b"\xff",
        b"\x03",
        b"\x03[]",
        b"\x03{}",
        b'\x03{"code": "0"}',
        b'\x03{"code": 0, "code": 1}',
        b'\x03{"code": 1e999}',
    ],
)
def test_a_frame_of_no_channel_is_refused(body):
    with pytest.raises(BadMessage):
        StreamReader().receive_untrusted(encode_frame(body, limit=100))


def test_a_huge_chunk_is_refused_at_its_header():
    """Threat: 12."""
    with pytest.raises(BadMessage, match="the limit is 65537"):
        StreamReader().receive_untrusted(b"\x7f\xff\xff\xff")


def test_a_reason_is_cut_before_anybody_shows_it():
    (end,) = StreamReader().receive_untrusted(encode_exit(JobExit(1, "x" * 5000)))

    assert end == JobExit(1, "x" * 200)


@given(st.lists(st.binary(max_size=30)))
def test_random_bytes_are_chunks_or_a_bad_message(pieces):
    reader = StreamReader()
    try:
        for piece in pieces:
            reader.receive_untrusted(piece)
    except BadMessage:
        pass
