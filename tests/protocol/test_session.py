"""The session: two real ends back to back, on a clock that is a number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame
from aemesh.protocol.session import (
    Answer,
    Notice,
    Pulse,
    Request,
    Session,
    SessionEvent,
)

ASK = wire.Assign(group="A", generation=1)


def frame(kind: str, **fields: object) -> bytes:
    data = msgspec.json.encode({"t": kind, **fields})
    return encode_frame(data, limit=limits.FRAME_BYTES)


@dataclass
class SessionPair:
    """Two sessions; what one says is heard by the other at once."""

    now: float = 1000.0
    master: Session = field(init=False)
    worker: Session = field(init=False)

    def __post_init__(self) -> None:
        self.master = Session(now=self.now)
        self.worker = Session(now=self.now)

    def check(self) -> None:
        self.master.check()
        self.worker.check()

    def to_worker(self, data: bytes) -> list[SessionEvent]:
        events = list(self.worker.receive_untrusted(data, self.now))
        self.check()
        return events

    def to_master(self, data: bytes) -> list[SessionEvent]:
        events = list(self.master.receive_untrusted(data, self.now))
        self.check()
        return events

    def tick(self, seconds: float = 0.0) -> tuple[Pulse, Pulse]:
        self.now += seconds
        pulses = self.master.tick(self.now), self.worker.tick(self.now)
        self.check()
        return pulses


@pytest.fixture
def pair() -> SessionPair:
    return SessionPair()


def test_a_request_is_answered_under_its_number(pair):
    first, data1 = pair.master.request(ASK, pair.now)
    second, data2 = pair.master.request(wire.Done(), pair.now)

    assert pair.to_worker(data1 + data2) == [
        Request(first, ASK),
        Request(second, wire.Done()),
    ]
    late = pair.worker.answer(second, wire.Done(), pair.now)
    csr = wire.Assigned(csr="PEM")
    early = pair.worker.answer(first, csr, pair.now)

    assert pair.to_master(late + early) == [
        Answer(second, wire.Done()),
        Answer(first, csr),
    ]


def test_a_notice_asks_for_nothing(pair):
    bye = wire.Bye(reason="noon")

    assert pair.to_worker(pair.master.notice(bye, pair.now)) == [Notice(bye)]
    assert pair.worker.unsent() == b""


@given(st.lists(st.integers(0, 300), max_size=8))
def test_a_message_cut_anywhere_is_heard_once(cuts):
    pair = SessionPair()
    stream = pair.master.request(ASK, 0.0)[1] + pair.master.notice(wire.Bye(), 0.0)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    heard = []

    for start, end in pairwise(edges):
        heard += pair.to_worker(stream[start:end])

    assert heard == [Request(1, ASK), Notice(wire.Bye())]


def test_an_unknown_type_is_answered_unsupported_and_nothing_ends(pair):
    asked = frame("dance", n=5, b={"style": "waltz"})

    assert pair.to_worker(asked) == []
    answer = pair.worker.unsent()
    assert pair.worker.unsent() == b""
    for _ in range(5):
        pair.master.request(ASK, pair.now)
    assert pair.to_master(answer) == [Answer(5, wire.Unsupported(what="dance"))]
    assert pair.to_worker(pair.master.notice(ASK, pair.now)) == [Notice(ASK)]


def test_two_ends_do_not_answer_unsupported_for_ever(pair):
    pair.to_worker(frame("dance"))
    (heard,) = pair.to_master(pair.worker.unsent())

    assert heard == Notice(wire.Unsupported(what="dance"))
    assert pair.master.unsent() == b""


def test_an_answer_of_an_unknown_type_is_an_answer_all_the_same(pair):
    number, _ = pair.master.request(ASK, pair.now)

    (answer,) = pair.to_master(frame("maybe", re=number))

    assert answer.number == number
    assert answer.body == wire.Failed(
        error="peer/bad-message",
        what='an answer of a type that we do not know, "maybe"',
    )


@pytest.mark.parametrize("kind", ["done", "beat", "verdict", "dance"])
def test_an_answer_to_no_question_is_refused(pair, kind):
    with pytest.raises(BadMessage, match="to no question of ours"):
        pair.to_master(frame(kind, re=7))


def test_an_answer_that_comes_twice_is_refused(pair):
    number, _ = pair.master.request(ASK, pair.now)
    answer = pair.worker.answer(number, wire.Done(), pair.now)
    pair.to_master(answer)

    with pytest.raises(BadMessage, match="to no question of ours"):
        pair.to_master(answer)


@pytest.mark.parametrize(
    "data",
    [
        frame("assign", b={"group": "A"}),
        frame("assign", b={"group": 1, "generation": 1}),
        frame("start", b={"job": "j", "generation": 1, "argv": []}),
        frame("start", b={"job": "j", "generation": 1, "argv": ["x"] * 1025}),
        frame("release", b={"generation": 1, "term_after": -1}),
        frame("release", b={"generation": 1, "term_after": 1e12}),
        frame("bye", b={"reason": "x" * 1001}),
        frame("beat", n=-1),
        encode_frame(b"", limit=10),
        encode_frame(b"{}", limit=10),
        b"\x7f\xff\xff\xff",
    ],
)
def test_a_message_that_is_wrong_is_refused(pair, data):
    with pytest.raises(BadMessage):
        pair.to_worker(data)


def test_two_that_only_beat_stay_alive(pair):
    for _ in range(50):
        pulses = pair.tick(0.5)
        assert pulses == (Pulse.ALIVE, Pulse.ALIVE)
        assert pair.to_worker(pair.master.unsent()) == []
        assert pair.to_master(pair.worker.unsent()) == []


def test_a_beat_is_said_only_when_nothing_else_was(pair):
    pair.now += limits.PING_EVERY * 0.9
    pair.master.notice(ASK, pair.now)
    pair.tick(limits.PING_EVERY * 0.9)
    assert pair.master.unsent() == b""

    pair.tick(limits.PING_EVERY * 0.1)
    assert b"beat" in pair.master.unsent()


def test_a_silent_peer_is_suspect_and_then_lost_at_the_deadlines(pair):
    edge = 0.001
    table = [
        (limits.SUSPECT_AFTER - edge, Pulse.ALIVE),
        (limits.SUSPECT_AFTER, Pulse.SUSPECT),
        (limits.LOST_AFTER - edge, Pulse.SUSPECT),
        (limits.LOST_AFTER, Pulse.LOST),
    ]
    for after, pulse in table:
        assert pair.master.tick(pair.now + after) is pulse
        pair.check()


def test_a_suspect_that_is_heard_is_alive_again(pair):
    pair.tick(limits.SUSPECT_AFTER)
    assert pair.master.pulse is Pulse.SUSPECT

    pair.to_master(frame("beat"))

    assert pair.master.pulse is Pulse.ALIVE
    assert pair.tick(limits.SUSPECT_AFTER - 0.01)[0] is Pulse.ALIVE


def test_a_large_message_on_a_slow_line_is_a_sign_of_life(pair):
    data = pair.worker.notice(wire.Failed(error="x", what="y" * 1000), pair.now)
    for at in range(0, len(data), 100):
        assert pair.tick(limits.PING_EVERY * 2)[0] is Pulse.ALIVE
        pair.to_master(data[at : at + 100])


def test_no_bytes_at_all_are_no_sign_of_life(pair):
    pair.now += limits.LOST_AFTER
    pair.to_master(b"")

    assert pair.tick()[0] is Pulse.LOST


@settings(max_examples=200)
@given(st.floats(0.0, 1e9), st.floats(0.0, 3.0))
def test_whoever_sleeps_until_wake_at_does_not_wake_for_nothing(start, heard_after):
    """A difference that rounds down would spin for ever under a virtual clock."""
    session = Session(now=start)
    list(session.receive_untrusted(frame("beat"), start + heard_after))
    for _ in range(20):
        wake_at = session.wake_at()
        before = (session.pulse, session.unsent())
        session.tick(wake_at)
        session.check()
        if session.pulse is Pulse.LOST:
            return
        assert (session.pulse, session.unsent()) != before
    pytest.fail("never lost")


def test_a_peer_that_does_not_read_makes_us_hold_only_so_much(pair):
    flood = frame("dance", n=1) * 100
    for _ in range(100):
        pair.to_worker(flood)

    unsent = pair.worker.unsent()

    assert limits.UNSENT_BYTES - 200 < len(unsent) <= limits.UNSENT_BYTES
    pair.to_worker(frame("dance"))
    assert b"dance" in pair.worker.unsent()


def test_beats_that_nobody_takes_do_not_pile_up(pair):
    for _ in range(10_000):
        pair.tick(limits.PING_EVERY)

    assert len(pair.master.unsent()) <= limits.UNSENT_BYTES


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60)), st.binary(max_size=40))
def test_random_bytes_are_refused_as_theirs(pieces, body):
    pair = SessionPair()
    pieces.append(encode_frame(body, limit=100))
    try:
        for piece in pieces:
            pair.to_worker(piece)
    except BadMessage:
        pass


def test_its_line_tells_how_it_is(pair):
    pair.master.request(ASK, pair.now)

    assert repr(pair.master) == "<Session alive, 1 requests open>"


def test_a_peer_that_cannot_be_lost_in_silence_is_only_suspect():
    session = Session(now=0.0, lost_after=math.inf)
    now = 0.0
    for _ in range(100):
        now = session.wake_at()
        session.tick(now)
        session.unsent()
    assert now > 10 * limits.LOST_AFTER
    assert session.pulse is Pulse.SUSPECT
