"""What a job asks, as parcels."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage, RunFullError
from aemesh.model.names import GroupName
from aemesh.model.run import Checkpoint, Commit, ItemId, Piece, RunKey, RunName
from aemesh.protocol.parcel import pack, unpack_untrusted
from aemesh.protocol.questions import (
    AskCheckpoint,
    AskCommit,
    AskKnown,
    Refused,
    ValueHead,
    answer_untrusted,
    encode,
    order_untrusted,
    question_untrusted,
    refused,
    run_untrusted,
)

A = GroupName("A")
ID = ItemId("0" * 31 + "1")


def test_a_commit_is_what_was_asked_for() -> None:
    heads = (ValueHead(ID, 3, "one"), ValueHead(ItemId("0" * 31 + "2"), 0))
    words, blob = question_untrusted(
        encode(AskCommit(run="k", life=4, items=heads), b"one")
    )

    assert isinstance(words, AskCommit)
    order = order_untrusted(words, blob, group=A, worker="w")

    pieces = (Piece(ID, b"one", "one"), Piece(heads[1].id, b""))
    assert order == Commit(RunName(A, RunKey("k"), 4), pieces, "w")


def test_a_checkpoint_is_what_was_asked_for() -> None:
    asked = encode(AskCheckpoint(run="k", life=4, item=ValueHead(ID, 2)), b"st")
    words, blob = question_untrusted(asked)

    assert isinstance(words, AskCheckpoint)
    assert order_untrusted(words, blob, group=A, worker="w") == Checkpoint(
        RunName(A, RunKey("k"), 4), Piece(ID, b"st"), "w"
    )


def test_a_refusal_has_its_error() -> None:
    words, _ = answer_untrusted(refused(RunFullError("full", why="so", hint="do")))

    assert words == Refused(error="run/full", what="full", why="so", hint="do")


@pytest.mark.parametrize(
    "words",
    [
        b"[]",
        b"{}",
        b"null",
        b'{"t": 1}',
        b'{"t": "unheard-of"}',
        b'{"t": "known", "run": "k", "life": 1}',
        b'{"t": "known", "run": "k", "life": -1, "items": []}',
        b'{"t": "known", "run": "k", "life": 1, "items": [1]}',
        b'{"t": "resume", "run": "k", "life": 1, "item": "' + b"0" * 33 + b'"}',
        b'{"t": "commit", "run": "k", "life": 1, "items": [{"id": "x", "size": -1}]}',
        b'{"t": "known", "t": "known", "run": "k", "life": 1, "items": []}',
        b"[" * 30_000,
        b"\xff",
    ],
)
def test_nonsense_is_refused(words: bytes) -> None:
    with pytest.raises(BadMessage):
        question_untrusted(pack(words))


def test_sizes_that_do_not_fit_and_names_that_are_none_are_refused() -> None:
    for heads in ((ValueHead(ID, 2),), (ValueHead(ID, 4),), (ValueHead("zz", 3),)):
        with pytest.raises(BadMessage):
            order_untrusted(
                AskCommit(run="k", life=1, items=heads),
                memoryview(b"one"),
                group=A,
                worker="w",
            )
    with pytest.raises(BadMessage):
        run_untrusted(AskKnown(run="../k", life=1, items=()), A)


def test_too_many_items_are_refused() -> None:
    items = [f"{number:032x}" for number in range(limits.RUN_BATCH_ITEMS + 1)]
    words = {"t": "known", "run": "k", "life": 1, "items": items}
    with pytest.raises(BadMessage):
        question_untrusted(pack(json.dumps(words).encode()))


def test_words_of_any_claimed_length_are_bounded() -> None:
    for data in (b"", b"\0\0\0", b"\0\0\0\5abcd", b"\xff\xff\xff\xffabc"):
        with pytest.raises(BadMessage):
            unpack_untrusted(data)


@given(st.binary(max_size=200))
def test_any_bytes_raise_bad_message_only(data: bytes) -> None:
    for one in (data, pack(data)):
        with suppress(BadMessage):
            question_untrusted(one)
