"""Fuzzed: what is said on one connection, at once and in pieces, by either side."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator

import msgspec

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import Decision, Mode, Proof, Reason, Role, Verdict
from aemesh.net.prove import _digest_untrusted, _token_untrusted
from aemesh.protocol import rotation, wire
from aemesh.protocol.certificate import leaf_untrusted
from aemesh.protocol.frames import HEADER_BYTES, FrameReader, encode_frame
from aemesh.protocol.handshake import Handshake, Side
from aemesh.protocol.hello import Meeting, Ourselves, nonce_untrusted
from aemesh.protocol.nodekey import node_key_untrusted, statement
from aemesh.protocol.parcel import pack
from aemesh.protocol.questions import (
    AskCheckpoint,
    AskCommit,
    order_untrusted,
    question_untrusted,
)
from aemesh.protocol.session import Session
from aemesh.protocol.streams import StreamReader, encode_chunk, encode_exit
from aemesh.protocol.strictjson import (
    convert_untrusted,
    decode_untrusted,
    parse_untrusted,
)
from aemesh.testing.pki import NOW
from tests.fuzz.allowed import allowed, check_told
from tests.fuzz.cutter import Cutter, as_json
from tests.fuzz.material import MASTER, NEXT, WORKER, load

PREAMBLE = "a5" * 32
NONCE = bytes(range(16))
DER = load()
SMALL = 4096
# A reader keeps one frame that is not whole, and nothing else.
_KEPT = HEADER_BYTES + limits.FRAME_BYTES


def frames(data: bytes) -> bool:
    """Any bytes: cut in any way, they come to the same frames."""
    cut = Cutter(data[-10:])
    at_once = _frames((data,))
    assert at_once == _frames(cut.pieces(data))
    return len(at_once) > 1


def _frames(parts: Iterable[bytes]) -> list[object]:
    reader = FrameReader(limit=SMALL)
    found: list[object] = []
    try:
        for part in parts:
            reader.receive_untrusted(part)
            while (frame := reader.next_untrusted()) is not None:
                assert len(frame) <= SMALL
                found.append(frame)
            assert len(reader._buffer) < HEADER_BYTES + SMALL
    except BadMessage as error:
        return [*found, str(error)]
    return [*found, reader.leftover()]


# --- messages -------------------------------------------------------------------------


def strict_json(data: bytes) -> bool:
    """What is taken is JSON to everybody, and can be written again."""
    with allowed(BadMessage):
        value = parse_untrusted(data)
        assert parse_untrusted(as_json(value)) == value
        text = as_json(value).decode()
        if not any(len(part) > 18 for part in _digits(text)):  # 64 bits for sure
            msgspec.json.encode(value)
        return True
    return False


def _digits(text: str) -> list[str]:
    return "".join(c if c.isdigit() else " " for c in text).split()


PAIR = {"commit": "00" * 32, "nonce": "00" * 16}
PEM = "-----BEGIN CERTIFICATE-----\n"
HONEST: dict[str, dict[str, object]] = {
    "pair": PAIR,
    "join": {"token": "abcdefgh", "mac": "00" * 32},
    "gss": {"token": "YII="},
    "verdict": {"decision": "ok", "reason": "known", "detail": ""},
    "beat": {},
    "unsupported": {"what": "dance"},
    "failed": {"error": "engine/failed", "what": "it is gone"},
    "done": {},
    "bye": {"reason": "the end"},
    "facts": {
        "cores": 4,
        "memory": 2**33,
        "python": "3.11.2",
        "system": "linux-x86_64",
        "generation": 7,
        "groups": ["A"],
    },
    "assign": {"group": "A", "generation": 7},
    "assigned": {"csr": PEM},
    "release": {"generation": 7, "term_after": 2.0},
    "delegate": {"job": "j", "generation": 7},
    "delegated": {"csr": PEM},
    "start": {
        "job": "j",
        "generation": 7,
        "argv": ["{python}", "x.py"],
        "env": {"A": "b"},
        "files": {"x.py": "eA=="},
        "tls": True,
        "certificate": PEM,
        "authority": PEM,
        "proxy": PEM,
    },
    "started": {},
    "end": {"job": "j", "term_after": 2.0},
    "attach": {"job": "j"},
    "leave": {"reason": "tea", "by_after": 30.0},
    "left": {"moved": 3, "lost": 0},
    "clone": {"address": "10.0.0.2:7472", "you": "10.0.0.3:7472"},
    "rotate": {
        "key": base64.b64encode(bytes(32)).decode(),
        "sig": base64.b64encode(bytes(64)).decode(),
    },
}


def messages(data: bytes) -> bool:
    """A message of any type with odd fields, or any bytes; then written again."""
    cut = Cutter(data)
    name = cut.one_of(list(HONEST))
    kind = wire.TYPES[name]
    if cut.number(4) == 3:
        raw = cut.rest()
    else:
        raw = cut.mutated(as_json(cut.mutated_fields(HONEST[name])))
    with allowed(BadMessage):
        body = decode_untrusted(raw, kind)
        envelope = decode_untrusted(wire.encode(body, n=1), wire.Envelope)
        assert (envelope.t, envelope.n, envelope.re) == (name, 1, 0)
        assert convert_untrusted(envelope.b, kind) == body
        return True
    return False


# --- the handshake --------------------------------------------------------------------

LEAVES = {one.name: leaf_untrusted(one.certificate) for one in (MASTER, WORKER)}
CERTIFIED = leaf_untrusted(DER["leaf"])  # another key than the worker's own
ENUMS = [e.value for kind in (Mode, Role, Decision, Reason, Proof) for e in kind]
WORDS: list[object] = [
    *ENUMS,
    *(str(MASTER.key_id), str(WORKER.key_id), str(CERTIFIED.key_id)),
    base64.b64encode(WORKER.public.raw).decode(),
    base64.b64encode(WORKER.sign(statement(CERTIFIED.key_id))).decode(),
    *(base64.b64encode(DER[name]).decode() for name in ("leaf", "below")),
]


def machine(side: Side, mode: Mode) -> Handshake:
    """Ours: a master that dials, or a worker that is dialled."""
    client = side is Side.CLIENT
    us, them = (MASTER, WORKER) if client else (WORKER, MASTER)
    leaf = LEAVES[them.name]
    return Handshake(
        side=side,
        ours=Ourselves(
            role=Role.MASTER if client else Role.WORKER,
            name=NodeName(us.name),
            key_id=us.key_id,
            mode=mode,
        ),
        meeting=Meeting(
            leaf=CERTIFIED if mode is Mode.X509 and client else leaf,
            address="192.0.2.7:7472",
            preamble_hash=PREAMBLE,
            nonce=NONCE,
            now=NOW,
        ),
    )


def _envelope(kind: str, fields: object, **more: int) -> bytes:
    body = as_json({"t": kind, "b": fields, **more})
    return encode_frame(body, limit=limits.FRAME_BYTES)


def _hello_fields(side: Side, mode: Mode) -> dict[str, object]:
    """An honest HELLO to our machine of this side."""
    other = Side.SERVER if side is Side.CLIENT else Side.CLIENT
    fields = msgspec.json.decode(machine(other, Mode.LEAP).hello()[4:])["b"]
    fields["mode"] = mode.value
    if mode is Mode.X509 and side is Side.CLIENT:
        key, sig = WORKER.public.raw, WORKER.sign(statement(CERTIFIED.key_id))
        fields["me"] = str(CERTIFIED.key_id)
        fields["chain"] = [base64.b64encode(DER["leaf"]).decode()]
        fields["node"] = base64.b64encode(key).decode()
        fields["node_sig"] = base64.b64encode(sig).decode()
    elif mode is Mode.X509:
        fields["chain"] = [base64.b64encode(MASTER.certificate).decode()]
    return fields


CASES = [(s, m) for m in (Mode.LEAP, Mode.X509, Mode.GSS) for s in Side]
HELLOS = {case: _hello_fields(*case) for case in CASES}
HELLO_FRAMES = {case: _envelope("hello", HELLOS[case]) for case in CASES}


def hello(data: bytes) -> bool:
    """A HELLO of which some fields are not as they were."""
    cut = Cutter(data)
    side, mode = cut.one_of(CASES)
    ours = machine(side, mode)
    fields = cut.mutated_fields(HELLOS[side, mode], WORDS)
    with allowed(BadMessage):
        (known,) = ours.receive_untrusted(_envelope("hello", fields))
        assert known.peer.key == (MASTER if side is Side.SERVER else WORKER).public
        assert known.peer.role is ours.ours.role.other
        assert len(ours.binding) == 32
        check_told(known.peer.name + known.peer.run)
        assert len(known.peer.name) <= 64
        assert known.peer.chain == () or known.peer.chain[0] == ours.meeting.leaf.der
        return True
    return False


SPOKEN = ["verdict", "verdict", "pair", "join", "gss", "hello", "beat", "assign"]
OURS = [
    Verdict(Decision.OK, Reason.KNOWN),
    Verdict(Decision.PENDING, Reason.UNKNOWN, "a person decides"),
    Verdict(Decision.NO, Reason.DECLINED),
]
Step = tuple[bytes, Verdict | None]


def handshake(data: bytes) -> bool:
    """After HELLO whatever may come, with judgements of ours in between."""
    cut = Cutter(data)
    side, mode = cut.one_of(CASES)
    steps = _steps(cut, side, mode)
    whole = _handshake(machine(side, mode), steps, lambda part: (part,))
    assert whole == _handshake(machine(side, mode), steps, cut.pieces)
    return whole[-1] is True


def _steps(cut: Cutter, side: Side, mode: Mode) -> list[Step]:
    """What the peer says, and what we judge after that; at its end both say ok."""
    steps: list[Step] = [(HELLO_FRAMES[side, mode], None)]
    for _ in range(cut.number(5)):
        if cut.number(3) == 2:
            steps.append((b"", cut.one_of(OURS)))
            continue
        kind = cut.one_of(SPOKEN)
        fields = HELLOS[side, mode] if kind == "hello" else HONEST[kind]
        stream = _envelope(kind, cut.mutated_fields(fields, ENUMS))
        steps.append((stream * (1 + cut.number(3)) + cut.piece(), None))
    theirs: Step = (_envelope("verdict", HONEST["verdict"]), None)
    ours: Step = (b"", OURS[0])
    return [*steps, *((ours, theirs) if side is Side.CLIENT else (theirs, ours))]


def _handshake(
    ours: Handshake, steps: list[Step], cut: Callable[[bytes], Iterable[bytes]]
) -> list[object]:
    found: list[object] = [ours.hello()]
    try:
        for said, verdict in steps:
            for part in cut(said):
                found += ours.receive_untrusted(part)
                if not ours.established:
                    kept = len(ours._frames._buffer)
                    assert kept < HEADER_BYTES + limits.HELLO_BYTES
            if verdict is not None:
                _decide(ours, verdict, found)
            _check_established(ours)
    except (BadMessage, RefusedError) as error:
        check_told(str(error))
        if isinstance(error, RefusedError):
            assert ours.heard.decision is Decision.NO
        # What was whole before it is lost with its piece; the connection ends anyway.
        return [type(error).__name__, str(error)]
    return [*_told(found), ours.leftover(), ours.established]


def _decide(ours: Handshake, verdict: Verdict, found: list[object]) -> None:
    if ours.peer is None:
        return
    last = ours.says_last_word(verdict)
    before = ours.established
    said = ours.decide(verdict)
    assert last == (ours.side is Side.SERVER and ours.established and not before)
    if said:
        body = decode_untrusted(said[HEADER_BYTES:], wire.Envelope)
        assert body.t == "verdict"
    found.append(said)


def _check_established(ours: Handshake) -> None:
    ours.check()
    ok = (Decision.OK, Decision.OK)
    both = tuple(one.decision for one in (ours.said, ours.heard) if one is not None)
    assert ours.established == (both == ok)


def _told(found: list[object]) -> list[object]:
    return [one if isinstance(one, bytes) else repr(one) for one in found]


def proofs(data: bytes) -> bool:
    """The texts in the steps of proofs: hex, base64, and what vouches for a key."""
    cut = Cutter(data)
    with allowed(BadMessage):
        assert len(_digest_untrusted(cut.text())) <= 128
    with allowed(BadMessage):
        assert _token_untrusted(cut.text()) is not None
    with allowed(BadMessage):
        assert len(nonce_untrusted(cut.text())) == 16
    honest = WORKER.sign(statement(MASTER.key_id))
    key, sig = cut.mutated(WORKER.public.raw), cut.mutated(honest)
    with allowed(BadMessage):
        found = node_key_untrusted(
            base64.b64encode(key).decode(),
            base64.b64encode(sig).decode(),
            tls_key=MASTER.key_id,
        )
        assert (found, sig) == (WORKER.public, honest), "one key, one signature"
        return True
    return False


BOUND = bytes(32)
ROTATED = NEXT.sign(rotation.statement(WORKER.key_id, NEXT.key_id, BOUND))


def rotations(data: bytes) -> bool:
    cut = Cutter(data)
    key, sig = cut.mutated(NEXT.public.raw), cut.mutated(ROTATED)
    with allowed(BadMessage):
        body = wire.Rotate(key=key, sig=sig)
        found = rotation.next_key_untrusted(body, WORKER.key_id, BOUND)
        assert (found, sig) == (NEXT.public, ROTATED)
        return True
    return False


# --- the session and a job's stream ---------------------------------------------------


def session(data: bytes) -> bool:
    """Requests, answers and notices of all types, with odd fields; and any bytes."""
    cut = Cutter(data)
    stream = b""
    for _ in range(1 + cut.number(4)):
        kind = cut.one_of([*HONEST, "dance", ""])
        fields: object = cut.mutated_fields(HONEST.get(kind, {}))
        if cut.number(16) == 15:
            fields = cut.json_value()
        numbers = {"n": cut.number(4), "re": cut.number(4)}
        stream += _envelope(kind, fields, **numbers)
    stream += cut.piece()
    at_once = _session((stream,))
    assert at_once == _session(cut.pieces(stream))
    return at_once[-1] is True


def _session(parts: Iterable[bytes]) -> list[object]:
    ours = Session(now=0.0)
    for _ in range(2):
        ours.request(wire.Done(), 0.0)
    events: list[object] = []
    try:
        for part in parts:
            events += map(repr, ours.receive_untrusted(part, 1.0))
            ours.check()
            assert len(ours._frames._buffer) < _KEPT
    except BadMessage as error:
        check_told(str(error))
        ours.check()
        return [*events, str(error), ours.unsent()]
    return [*events, ours.unsent(), bool(events)]


def flood(kind: str, number: int, side: Side, mode: Mode) -> None:
    """One message a thousand times, in a session and before the last word."""
    stream = _envelope(kind, HONEST.get(kind, {}), n=number) * (limits.VERDICTS + 1)
    unsent = _session((stream,))[-2]
    assert len(unsent) <= limits.UNSENT_BYTES
    steps: list[Step] = [(HELLO_FRAMES[side, mode], None), (stream, None)]
    ended = _handshake(machine(side, mode), steps, lambda part: (part,))
    assert ended[0] in {"BadMessage", "RefusedError"}


def streams(data: bytes) -> bool:
    """A job's stream of honest pieces, with others between."""
    cut = Cutter(data)
    stream, honest = b"", []
    for _ in range(1 + cut.number(4)):
        match cut.number(4):
            case 0:
                honest.append(Chunk(cut.one_of(list(Channel)), cut.piece()))
                stream += encode_chunk(honest[-1])
            case 1:
                code = int.from_bytes(cut.bytes(4), "big", signed=True)
                reason = cut.piece().decode("latin-1")
                honest.append(JobExit(code, reason[:200]))
                stream += encode_exit(JobExit(code, reason))
            case 2:
                fields = cut.mutated_fields({"code": 0, "reason": "released"})
                stream += encode_frame(b"\3" + as_json(fields), limit=2**20)
                honest = []
            case _:
                stream += cut.piece()
                honest = []
    at_once = list(_stream((stream,)))
    assert at_once == list(_stream(cut.pieces(stream)))
    return bool(honest) and at_once[-len(honest) :] == honest


def questions(data: bytes) -> bool:
    """What a job asks: words with one field another, and bytes that may not fit."""
    cut = Cutter(data)
    fields = {
        "t": cut.one_of(["known", "commit", "checkpoint", "resume", "whoami"]),
        "run": "k",
        "life": 1,
        "items": [{"id": "0" * 32, "size": 1, "title": ""}],
        "item": {"id": "0" * 32, "size": 1},
    }
    words = as_json(cut.mutated_fields(fields))
    taken = False
    for question in (data, pack(data), pack(words, cut.piece())):
        try:
            asked, blob = question_untrusted(question)
            if isinstance(asked, AskCommit | AskCheckpoint):
                group = GroupName("A")
                order_untrusted(asked, blob, group=group, worker="w")
            taken = True
        except BadMessage as error:
            check_told(str(error))
    return taken


def _stream(parts: Iterable[bytes]) -> Iterator[object]:
    reader = StreamReader()
    found: list[object] = []
    try:
        for part in parts:
            found += reader.receive_untrusted(part)
            assert len(reader._frames._buffer) <= HEADER_BYTES + limits.CHUNK_BYTES
    except BadMessage as error:
        check_told(str(error))
        # What was whole before it is lost with its piece; the stream ends anyway.
        yield str(error)
        return
    yield from found
