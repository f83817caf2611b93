"""JSON from strangers: one value of one type, or `BadMessage`."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.protocol import wire
from aemesh.protocol.strictjson import (
    convert_untrusted,
    decode_untrusted,
    parse_untrusted,
)

KEEPER = wire.Keeper(
    address="192.0.2.1:7472", key="SHA256:k", master=b"m" * 32, sig=b"s" * 64
)
SAMPLES: dict[type[wire.Body], wire.Body] = {
    wire.Orphaned: wire.Orphaned(
        master="SHA256:m", group="A", generation=3, jobs=("A-1",), keeper=KEEPER
    ),
    wire.Adopt: wire.Adopt(group="A", generation=3),
    wire.Keep: wire.Keep(key="A", data="{}"),
    wire.Recall: wire.Recall(after="A"),
    wire.Ask: wire.Ask(what="events", group="A", after=7),
    wire.Told: wire.Told(text="{}\n", more=True),
    wire.Recalled: wire.Recalled(entries=(wire.Keep(key="A", data="{}"),)),
    wire.Hello: wire.Hello(
        v=1,
        role="worker",
        name="lab-1",
        mode="leap",
        me="SHA256:a",
        you="SHA256:b",
        pre="0" * 64,
        nonce="0" * 32,
        now=1.5,
        feat=("x",),
    ),
    wire.Pair: wire.Pair(nonce="0" * 32),
    wire.Join: wire.Join(token="aaaaaaaa", mac="0" * 64),
    wire.Gss: wire.Gss(token="YII="),
    wire.VerdictBody: wire.VerdictBody(decision="ok", reason="known", detail="ä"),
    wire.Beat: wire.Beat(),
    wire.Unsupported: wire.Unsupported(what="dance"),
    wire.Failed: wire.Failed(error="ours/bug", what="a\u0000b"),
    wire.Done: wire.Done(),
    wire.Bye: wire.Bye(reason="noon"),
    wire.WorkerFacts: wire.WorkerFacts(
        cores=4, memory=2**40, python="3.11.2", system="linux", generation=7
    ),
    wire.Assign: wire.Assign(group="A", generation=8),
    wire.Assigned: wire.Assigned(csr="PEM"),
    wire.Release: wire.Release(generation=8, term_after=2.0),
    wire.Start: wire.Start(
        job="j1",
        generation=8,
        argv=("{python}", "-c", "1"),
        env={"A": "b"},
        files={"x.py": b"\x00\xff"},
        tls=True,
        certificate="C",
        authority="A",
    ),
    wire.Delegate: wire.Delegate(job="j1", generation=8),
    wire.Delegated: wire.Delegated(csr="PEM"),
    wire.Started: wire.Started(),
    wire.End: wire.End(job="j1", term_after=0.0),
    wire.Want: wire.Want(workers=3),
    wire.Warm: wire.Warm(kinds=(wire.WarmKind(engine="dask", preload=("a.b",)),)),
    wire.Dial: wire.Dial(id="0" * 32),
    wire.Dialled: wire.Dialled(id="0" * 32),
    wire.Probe: wire.Probe(host="192.0.2.7", nonce="0" * 32),
    wire.Probed: wire.Probed(port=40000),
    wire.Forward: wire.Forward(generation=8, port=40000),
    wire.Attach: wire.Attach(job="j1"),
    wire.Leave: wire.Leave(reason="lunch", by_after=30.0),
    wire.Rotate: wire.Rotate(key=bytes(32), sig=bytes(64)),
    wire.Leaving: wire.Leaving(pieces=2, bytes=4096, needs_after=1.5, fits=False),
    wire.Left: wire.Left(moved=3, lost=0, moved_bytes=4096, group="A"),
    wire.Stay: wire.Stay(),
    wire.Clone: wire.Clone(address="10.77.0.3:7472", you="10.77.0.2:7472"),
}

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("nothing", b""),
        ("blanks", b"  "),
        ("not UTF-8", b'{"t": "\xff"}'),
        ("UTF-16", '{"t": "beat"}'.encode("utf-16")),
        ("a mark of byte order", b'\xef\xbb\xbf{"t": "beat"}'),
        ("NaN", b'{"t": "beat", "n": NaN}'),
        ("Infinity", b'{"t": "beat", "n": -Infinity}'),
        ("beyond all floats", b'{"t": "beat", "b": {"x": 1e999}}'),
        ("60000 digits", b'{"t": "beat", "n": ' + b"9" * 60000 + b"}"),
        ("21 digits", b'{"t": "beat", "b": {"x": ' + b"9" * 21 + b"}}"),
        ("a twin", b'{"t": "beat", "t": "bye"}'),
        ("an escaped twin", b'{"t": "beat", "\\u0074": "bye"}'),
        ("a deep twin", b'{"t": "beat", "b": {"x": {"y": 1, "y": 1}}}'),
        ("two values", b'{"t": "beat"}{"t": "beat"}'),
        ("a lone surrogate", b'{"t": "beat", "b": {"x": "\\ud800"}}'),
        ("a surrogate as key", b'{"t": "beat", "b": {"\\udfff": 1}}'),
        ("a list", b"[]"),
        ("a number", b"1"),
        ("null", b"null"),
        ("no type", b"{}"),
        ("a type of 65 letters", b'{"t": "' + b"x" * 65 + b'"}'),
        ("a negative number", b'{"t": "beat", "n": -1}'),
        ("half a number", b'{"t": "beat", "n": 0.5}'),
        ("a number as words", b'{"t": "beat", "n": "1"}'),
        ("a cut end", b'{"t": "beat"'),
        ("30000 brackets", b"[" * 30000),
        ("30000 braces", b'{"a":' * 30000),
    ],
)
def test_what_is_no_envelope_is_a_bad_message(name, data):
    """Threat: 19."""
    with pytest.raises(BadMessage) as caught:
        decode_untrusted(data, wire.Envelope)

    assert len(str(caught.value)) < 200, name
    assert str(caught.value).isprintable(), name


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_the_deepest_message_is_as_deep_as_the_limit_says():
    """Threat: 19."""
    parse_untrusted(nested(limits.JSON_DEPTH))

    with pytest.raises(BadMessage, match="nested"):
        parse_untrusted(nested(limits.JSON_DEPTH + 1))


def test_many_brackets_side_by_side_are_not_deep():
    data = b'{"t": "beat", "b": {"x": [' + b",".join([b"[1]"] * 1000) + b"]}}"

    assert len(parse_untrusted(data)["b"]["x"]) == 1000


@given(st.binary(max_size=200))
def test_random_bytes_are_a_value_or_a_bad_message(data):
    with suppress(BadMessage):
        decode_untrusted(data, wire.Envelope)


@given(plain)
def test_any_value_that_json_can_say_is_read_as_json_reads_it(value):
    data = json.dumps(value).encode()
    try:
        parsed = parse_untrusted(data)
    except BadMessage:
        # What `json.dumps` writes and we refuse: text that is no Unicode.
        with pytest.raises(UnicodeEncodeError):
            json.dumps(value, ensure_ascii=False).encode()
    else:
        assert parsed == json.loads(data)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(list(wire.TYPES.values())))
def test_any_object_is_a_body_or_a_bad_message(data, kind):
    fields = dict.fromkeys(kind.__struct_fields__, plain)
    try:
        convert_untrusted(data.draw(st.fixed_dictionaries({}, optional=fields)), kind)
    except BadMessage as exc:
        assert str(exc).isprintable()


@pytest.mark.parametrize("kind", list(wire.TYPES.values()), ids=list(wire.TYPES))
def test_every_message_comes_back_as_it_went(kind):
    body = SAMPLES[kind]

    envelope = decode_untrusted(wire.encode(body, n=3), wire.Envelope)

    assert envelope.n == 3
    assert envelope.re == 0
    assert convert_untrusted(envelope.b, wire.TYPES[envelope.t]) == body


@pytest.mark.parametrize("kind", list(wire.TYPES.values()), ids=list(wire.TYPES))
def test_a_newer_peer_may_say_more(kind):
    fields = msgspec.to_builtins(SAMPLES[kind]) | {"tomorrow": [1, {"x": 2}]}

    assert convert_untrusted(fields, kind) == SAMPLES[kind]
