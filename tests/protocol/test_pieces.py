"""Messages of any length as pieces of a job's stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.protocol.pieces import Assembly, Message, cut
from aemesh.protocol.streams import (
    Side,
    StreamReader,
    encode_answer,
    encode_chunk,
    encode_exit,
    encode_question,
)


@pytest.mark.parametrize("size", [0, 1, 65530, 65531, 65532, 131062, 131063, 1_000_000])
def test_a_message_of_any_length_comes_whole(size: int) -> None:
    message = Message(7, bytes(size))
    assembly = Assembly()

    *rest, last = [assembly.receive_untrusted(piece) for piece in cut(message)]

    assert last == message
    assert set(rest) <= {None}


def test_output_may_come_between_two_pieces() -> None:
    first, second, *_ = encode_question(Message(1, bytes(100_000)))
    chunk = Chunk(Channel.STDOUT, b"hello")
    reader = StreamReader(Side.MASTER)

    found = reader.receive_untrusted(first + encode_chunk(chunk) + second)

    assert found == [chunk]
    assert list(reader.messages) == [Message(1, bytes(100_000))]


@pytest.mark.parametrize(
    ("side", "encode"),
    [
        (Side.OUTSIDE, encode_question),
        (Side.OUTSIDE, encode_answer),
        (Side.MASTER, encode_answer),
        (Side.AGENT, encode_question),
    ],
)
def test_a_message_on_the_wrong_side_is_refused(side, encode) -> None:
    reader = StreamReader(side)

    with pytest.raises(BadMessage):
        reader.receive_untrusted(next(encode(Message(1, b"x"))))


def test_a_piece_of_another_message_in_between_is_refused() -> None:
    first, _ = cut(Message(1, bytes(100_000)))
    other = next(cut(Message(2, b"x")))
    assembly = Assembly()
    assembly.receive_untrusted(first)

    with pytest.raises(BadMessage, match="within 1"):
        assembly.receive_untrusted(other)


def test_a_message_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RUN_MESSAGE_BYTES", 100_000)
    first, *_ = cut(Message(1, bytes(100_000)))
    assembly = Assembly()
    assembly.receive_untrusted(first)

    with pytest.raises(BadMessage, match="over"):
        assembly.receive_untrusted(first)


@given(st.lists(st.binary(max_size=12), max_size=12))
def test_nonsense_raises_bad_message_only(pieces: list[bytes]) -> None:
    assembly = Assembly()
    for piece in pieces:
        try:
            assembly.receive_untrusted(piece)
        except BadMessage:
            return


@given(st.integers(1, 9), st.integers(1, 70))
def test_a_stream_that_is_cut_anywhere_says_the_same(step: int, size: int) -> None:
    wire = b"".join(encode_question(Message(5, bytes(size)))) + encode_exit(JobExit(3))
    reader = StreamReader(Side.MASTER)
    found = []
    for at in range(0, len(wire), step):
        found += reader.receive_untrusted(wire[at : at + step])

    assert found == [JobExit(3)]
    assert list(reader.messages) == [Message(5, bytes(size))]
