"""The handshake: two real ends back to back, and every way to refuse it."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage, BugError, RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.model.names import NodeName
from aemesh.model.trust import Decision, Mode, Reason, Role, Verdict
from aemesh.protocol import wire
from aemesh.protocol.certificate import leaf_untrusted
from aemesh.protocol.frames import HEADER_BYTES, encode_frame
from aemesh.protocol.handshake import (
    Established,
    Handshake,
    HandshakeEvent,
    PeerKnown,
    Side,
    VerdictHeard,
)
from aemesh.protocol.hello import Meeting, Ourselves, Purpose
from aemesh.protocol.session import Notice, Request, Session
from aemesh.protocol.strictjson import convert_untrusted, decode_untrusted

MASTER = Identity.ephemeral("desk")
WORKER = Identity.ephemeral("lab-1")
OTHER = Identity.ephemeral("other")
PREAMBLE = "a5" * 32

OK = Verdict(Decision.OK, Reason.KNOWN)
PENDING = Verdict(Decision.PENDING, Reason.UNKNOWN, "a person decides")
NO = Verdict(Decision.NO, Reason.DECLINED, "a person said no")


def machine(side: Side, us: Identity, them: Identity, role: Role, **changes: object):
    ours = Ourselves(
        role=role, name=NodeName(us.name), key_id=us.key_id, mode=Mode.LEAP
    )
    fields: dict[str, object] = {
        "side": side,
        "ours": ours,
        "meeting": Meeting(
            leaf=leaf_untrusted(them.certificate),
            address="192.0.2.7:7472",
            preamble_hash=PREAMBLE,
            nonce=bytes(range(16)),
            now=1_800_000_000.0,
        ),
    }
    return Handshake(**(fields | changes))


@dataclass
class HandshakePair:
    """A master that dialled and a worker that was dialled, back to back."""

    client: Handshake = field(
        default_factory=lambda: machine(Side.CLIENT, MASTER, WORKER, Role.MASTER)
    )
    server: Handshake = field(
        default_factory=lambda: machine(Side.SERVER, WORKER, MASTER, Role.WORKER)
    )

    def check(self) -> None:
        self.client.check()
        self.server.check()
        assert not self.client.established or _is_ok(self.server.said)
        assert not self.server.established or _is_ok(self.client.said)

    def greet(self) -> None:
        """Exchange HELLOs."""
        assert self.to_server(self.client.hello())
        assert self.to_client(self.server.hello())

    def to_server(self, data: bytes) -> list[HandshakeEvent]:
        events = self.server.receive_untrusted(data)
        self.check()
        return events

    def to_client(self, data: bytes) -> list[HandshakeEvent]:
        events = self.client.receive_untrusted(data)
        self.check()
        return events

    def client_says(self, verdict: Verdict) -> list[HandshakeEvent]:
        return self.to_server(self.client.decide(verdict))

    def server_says(self, verdict: Verdict) -> list[HandshakeEvent]:
        data = self.server.decide(verdict)
        return self.to_client(data) if data else []


@pytest.fixture
def pair() -> HandshakePair:
    return HandshakePair()


def _is_ok(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.decision is Decision.OK


def frame(kind: str, body: dict[str, object]) -> bytes:
    data = msgspec.json.encode({"t": kind, "b": body})
    return encode_frame(data, limit=limits.HELLO_BYTES)


def changed_hello(hello: bytes, **changes: object) -> bytes:
    envelope = decode_untrusted(hello[HEADER_BYTES:], wire.Envelope)
    return frame("hello", envelope.b | changes)


def said_verdict(data: bytes) -> wire.VerdictBody:
    envelope = decode_untrusted(data[HEADER_BYTES:], wire.Envelope)
    return convert_untrusted(envelope.b, wire.VerdictBody)


def test_two_that_know_each_other_are_established_after_two_verdicts(pair):
    (known,) = pair.to_server(pair.client.hello())
    assert isinstance(known, PeerKnown)
    assert known.peer.name == "desk"
    assert known.peer.role is Role.MASTER
    assert known.peer.key == MASTER.public
    assert known.purpose is Purpose.CONTROL
    (known,) = pair.to_client(pair.server.hello())
    assert known.peer.name == "lab-1"

    assert pair.client_says(OK) == [VerdictHeard(OK)]
    assert not pair.server.established
    assert pair.server.says_last_word(OK)
    assert pair.server_says(OK) == [VerdictHeard(OK), Established()]

    assert pair.server.established
    assert pair.client.established
    assert not pair.server.says_last_word(OK)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 1000), max_size=8))
def test_a_handshake_cut_anywhere_is_heard_once(cuts):
    pair = HandshakePair()
    pair.to_client(pair.server.hello())
    stream = pair.client.hello() + pair.client.decide(PENDING) + pair.client.decide(OK)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    heard: list[HandshakeEvent] = []

    for start, end in pairwise(edges):
        heard += pair.to_server(stream[start:end])

    assert isinstance(heard[0], PeerKnown)
    assert heard[1:] == [VerdictHeard(PENDING), VerdictHeard(OK)]


def test_what_comes_behind_the_last_verdict_is_left_for_the_session(pair):
    pair.greet()
    pair.client_says(OK)
    session = Session(now=0.0)
    early = session.notice(wire.Bye(reason="at once"), 0.0)

    events = pair.to_client(pair.server.decide(OK) + early)

    assert events == [VerdictHeard(OK), Established()]
    heard = Session(now=0.0).receive_untrusted(pair.client.leftover(), 0.0)
    assert list(heard) == [Notice(wire.Bye(reason="at once"))]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"me": str(OTHER.key_id)}, "its own key"),
        ({"you": str(OTHER.key_id)}, "our key"),
        ({"you": str(MASTER.key_id)}, "our key"),
        ({"pre": "00" * 32}, "altered on the way"),
        ({"pre": PREAMBLE.upper()}, "altered on the way"),
        ({"mode": "shut"}, "unknown mode"),
        ({"role": "worker"}, "a worker talks to a master, the peer is a worker"),
        ({"role": "king"}, "unknown role"),
        ({"v": 0}, "version 0, we speak 1"),
        ({"v": 2}, "version 2, we speak 1"),
        ({"name": "a b"}, "name"),
        ({"name": "\u0430dmin"}, "name"),  # a Cyrillic letter
        ({"name": "x\x1b[2J"}, "name"),
        ({"name": "-rf"}, "name"),
        ({"name": "x" * 65}, "Hello"),
        ({"name": ""}, "Hello"),
        ({"nonce": "zz" * 16}, "nonce"),
        ({"nonce": "00" * 15}, "Hello"),
        ({"nonce": "00  " * 8}, "nonce"),  # `bytes.fromhex` passes over blanks
        ({"purpose": "fun"}, "unknown purpose"),
        ({"now": -1.0}, "Hello"),
        ({"now": 1e300}, "Hello"),
        ({"now": None}, "Hello"),
        ({"feat": ["x"] * 65}, "Hello"),
    ],
)
def test_a_hello_that_is_wrong_is_refused(pair, changes, words):
    """Threat: 5."""
    with pytest.raises(BadMessage, match=words) as caught:
        pair.to_server(changed_hello(pair.client.hello(), **changes))

    assert str(caught.value).isprintable()
    assert pair.server.peer is None


@pytest.mark.parametrize("missing", ["v", "role", "name", "me", "you", "pre", "nonce"])
def test_a_hello_without_a_field_is_refused(pair, missing):
    envelope = decode_untrusted(pair.client.hello()[HEADER_BYTES:], wire.Envelope)
    del envelope.b[missing]

    with pytest.raises(BadMessage, match=missing):
        pair.to_server(frame("hello", envelope.b))


def test_a_hello_of_a_newer_peer_may_say_more(pair):
    hello = changed_hello(pair.client.hello(), feat=["sas", "x" * 64], tomorrow=[1])

    (known,) = pair.to_server(hello)

    assert known.peer.name == "desk"


def test_the_mode_of_the_peer_is_told_to_whoever_judges(pair):
    (known,) = pair.to_server(changed_hello(pair.client.hello(), mode="open"))

    assert known.peer.mode is Mode.OPEN


def test_a_clock_that_is_wrong_is_told_and_does_not_matter_here(pair):
    """Threat: 49."""
    ahead = pair.client.meeting.now + 3600.0

    (known,) = pair.to_server(changed_hello(pair.client.hello(), now=ahead))

    assert known.skew == 3600.0


def test_our_own_key_at_the_other_end_is_refused():
    """Threat: 16."""
    server = machine(Side.SERVER, WORKER, WORKER, Role.WORKER)
    client = machine(Side.CLIENT, WORKER, WORKER, Role.MASTER)

    with pytest.raises(BadMessage, match="our own key"):
        server.receive_untrusted(client.hello())


def test_our_own_hello_sent_back_is_refused(pair):
    """Threat: 16."""
    with pytest.raises(BadMessage, match="TLS proved"):
        pair.to_client(pair.client.hello())


def test_a_second_hello_is_refused(pair):
    pair.to_server(pair.client.hello())

    with pytest.raises(BadMessage, match="expected verdict"):
        pair.to_server(pair.client.hello())


@pytest.mark.parametrize("kind", ["verdict", "assign", "start", "beat", "dance"])
def test_nothing_comes_before_hello(pair, kind):
    with pytest.raises(BadMessage, match="expected hello"):
        pair.to_server(frame(kind, {"decision": "ok", "reason": "known"}))


@pytest.mark.parametrize("kind", ["assign", "start", "beat", "dance"])
def test_nothing_but_verdicts_comes_before_both_are_ok(pair, kind):
    """Threat: 18."""
    pair.greet()
    pair.client_says(OK)

    with pytest.raises(BadMessage, match="expected verdict"):
        pair.to_server(frame(kind, {"group": "A", "generation": 1}))


@pytest.mark.parametrize("said", [None, PENDING], ids=["nothing", "pending"])
def test_a_server_may_not_say_ok_before_the_client(pair, said):
    pair.greet()
    if said is not None:
        pair.client_says(said)

    with pytest.raises(BadMessage, match="before the client did"):
        pair.to_client(frame("verdict", {"decision": "ok", "reason": "known"}))

    assert not pair.client.established


def test_a_server_holds_its_ok_until_the_client_has_said_it(pair):
    pair.greet()

    assert pair.server.decide(OK) == b""  # the client judges first
    pair.client_says(PENDING)
    assert not pair.server.says_last_word(OK)
    (heard,) = pair.server_says(OK)
    assert heard.verdict.decision is Decision.PENDING
    assert pair.server.decide(OK) == b""  # said already
    pair.client_says(OK)
    assert pair.server_says(OK)[-1] == Established()


def test_a_server_that_waits_for_a_person_says_ok_when_it_came(pair):
    pair.greet()
    pair.client_says(OK)

    assert pair.server_says(PENDING) == [VerdictHeard(PENDING)]
    assert pair.server.decide(PENDING) == b""
    assert pair.to_client(pair.server.repeat()) == [VerdictHeard(PENDING)]
    assert pair.to_server(pair.client.repeat()) == [VerdictHeard(OK)]
    assert pair.server_says(OK) == [VerdictHeard(OK), Established()]


def test_a_no_of_either_side_ends_it_with_its_reason(pair):
    pair.greet()

    with pytest.raises(RefusedError, match=r'desk refused us: declined, "a person'):
        pair.client_says(NO)

    assert pair.server.heard == NO


def test_a_no_of_the_server_comes_after_the_client_judged(pair):
    pair.greet()
    assert pair.server.decide(NO) == b""
    pair.client_says(OK)

    with pytest.raises(RefusedError, match="lab-1 refused us"):
        pair.server_says(NO)


def test_nothing_is_said_after_both_were_ok(pair):
    pair.greet()
    pair.client_says(OK)
    pair.server_says(OK)

    assert pair.server.decide(NO) == b""
    assert pair.client.decide(PENDING) == b""


def test_a_verdict_of_a_stranger_is_shown_escaped(pair):
    pair.greet()
    body = {"decision": "no", "reason": "full", "detail": "\x1b[2J" * 100}

    with pytest.raises(RefusedError) as caught:
        pair.to_server(frame("verdict", body))

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "body",
    [
        {"decision": "perhaps", "reason": "known"},
        {"decision": "ok", "reason": "why not"},
        {"decision": "ok"},
        {"decision": "ok", "reason": "known", "detail": "x" * 1001},
        {"decision": True, "reason": "known"},
    ],
)
def test_a_verdict_that_is_wrong_is_refused(pair, body):
    pair.greet()

    with pytest.raises(BadMessage):
        pair.to_server(frame("verdict", body))

    assert pair.server.heard is None


def test_verdicts_without_end_are_refused(pair):
    pair.greet()
    body = frame("verdict", {"decision": "pending", "reason": "unknown"})
    for _ in range(limits.VERDICTS):
        pair.to_server(body)

    with pytest.raises(BadMessage, match="more than 1000 verdicts"):
        pair.to_server(body)


def test_to_judge_before_the_hello_is_our_own_bug(pair):
    with pytest.raises(BugError):
        pair.server.decide(OK)


def test_a_long_detail_of_ours_is_cut_to_what_the_peer_takes(pair):
    pair.greet()

    data = pair.client.decide(Verdict(Decision.OK, Reason.KNOWN, "x" * 5000))

    assert len(said_verdict(data).detail) == 1000


def test_a_purpose_is_said_by_whoever_dials():
    pair = HandshakePair(
        client=machine(Side.CLIENT, MASTER, WORKER, Role.MASTER, purpose=Purpose.STREAM)
    )

    (known,) = pair.to_server(pair.client.hello())

    assert known.purpose is Purpose.STREAM


@settings(max_examples=200)
@given(st.lists(st.binary(max_size=60), max_size=4), st.booleans())
def test_random_bytes_are_refused_as_theirs(pieces, greeted):
    pair = HandshakePair()
    if greeted:
        pair.greet()
    try:
        for piece in pieces:
            pair.to_server(piece)
    except (BadMessage, RefusedError):
        pass
    assert not pair.server.established


moves = st.lists(
    st.tuples(st.booleans(), st.sampled_from([OK, PENDING])), min_size=1, max_size=12
)


@given(moves)
def test_any_order_of_judgements_is_established_on_both_sides_or_on_neither(said):
    pair = HandshakePair()
    pair.greet()
    for by_client, verdict in said:
        us, hear = (
            (pair.client, pair.to_server)
            if by_client
            else (pair.server, pair.to_client)
        )
        data = us.decide(verdict)
        if data:
            hear(data)

    assert pair.client.established == pair.server.established


def test_a_verdict_that_crossed_the_last_one_is_passed_over_by_the_session(pair):
    pair.greet()
    pair.client_says(OK)
    late = pair.client.repeat()
    pair.server_says(OK)

    assert pair.to_server(late) == []
    session = Session(now=0.0)
    data = pair.server.leftover() + Session(now=0.0).request(wire.Done(), 0.0)[1]
    assert list(session.receive_untrusted(data, 0.0)) == [Request(1, wire.Done())]
