"""Everything that decodes what a stranger sends, or what stands in a file by hand.

A target takes bytes and may raise nothing: what its decoder is allowed to raise it
catches.  It asserts more than that: what was decoded encodes to the same, and bytes
one by one come to the same as all at once.

`tests/fuzz/test_targets.py` gives each some inputs of hypothesis and all that once
broke one; ``make fuzz`` gives them millions, by coverage.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError
from aemesh.host.keys.keystore import Identity
from aemesh.host.trust import pending, tokenfile
from aemesh.host.trust.authorizedlines import (
    parse_authorized_untrusted,
    parse_principal_untrusted,
)
from aemesh.host.trust.trustlines import (
    RefusedLineError,
    known_line,
    parse_line_untrusted,
    revoked_line,
)
from aemesh.host.trust.trustoptions import expiry_untrusted, terms_untrusted
from aemesh.model.address import Address
from aemesh.model.jointoken import JoinToken
from aemesh.model.key import KeyId, PublicKey, openssh_key_id_untrusted
from aemesh.model.names import NodeName, node_name_untrusted
from aemesh.model.trust import (
    Anchors,
    Decision,
    KnownPeer,
    Mode,
    Reason,
    RevokedKey,
    Role,
    Verdict,
)
from aemesh.policy.proxy import check_proxy, decode_info_untrusted, encode_info
from aemesh.policy.x509 import Certified, verify_untrusted
from aemesh.protocol import wire
from aemesh.protocol.announcement import (
    claims_untrusted,
    decode_untrusted,
    instance_name,
    signed_bytes,
)
from aemesh.protocol.certificate import leaf_untrusted
from aemesh.protocol.frames import FrameReader, encode_frame
from aemesh.protocol.handshake import Handshake, Side
from aemesh.protocol.hello import Meeting, Ourselves
from aemesh.protocol.nodekey import node_key_untrusted, statement
from aemesh.protocol.preamble import (
    HEADER_BYTES,
    body_length_untrusted,
    chain_untrusted,
    encode_preamble,
)
from aemesh.protocol.rotation import next_key_untrusted
from aemesh.protocol.session import Session
from aemesh.protocol.streams import StreamReader
from aemesh.protocol.strictjson import convert_untrusted, parse_untrusted
from aemesh.testing.pki import NOW, Authority
from tests.fuzz.cutter import Cutter, as_json

MASTER, WORKER = Identity.ephemeral("desk"), Identity.ephemeral("lab-1")
PREAMBLE = "a5" * 32
NONCE = bytes(range(16))
LEAVES = {one.name: leaf_untrusted(one.certificate) for one in (MASTER, WORKER)}


@dataclass(frozen=True)
class Target:
    """A decoder; `share` of the runs of ``make fuzz`` go to it."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    share: int = 10


# --- before and around TLS ------------------------------------------------------------


def preamble(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        length = body_length_untrusted(data[:HEADER_BYTES])
        assert length <= limits.PREAMBLE_BYTES
        body = data[HEADER_BYTES : HEADER_BYTES + length]
        chain = chain_untrusted(data[:HEADER_BYTES], body)
        assert encode_preamble(chain) == data[:HEADER_BYTES] + body


def certificate(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        leaf = leaf_untrusted(Cutter(data).mutated(WORKER.certificate))
        assert leaf.node_key is None or leaf.node_key.key_id == leaf.key_id


ROOT = Authority.root("root")
BELOW = ROOT.below("below")
LEAF = BELOW.leaf("lab-1", uris=("aemesh://lab/worker/lab-1",))
CHAIN = (LEAF, BELOW.der)
LISTS = (ROOT.crl(), BELOW.crl())


def chains(data: bytes) -> None:
    """One piece of what X.509 is judged by is broken, or the order of the chain."""
    cut = Cutter(data)
    pieces = [*CHAIN, ROOT.der, *LISTS]
    which = cut.number(6)
    if which < len(pieces):
        pieces[which] = cut.mutated(pieces[which])
    chain = (pieces[0], pieces[1], cut.rest())[: 1 + cut.number(3)]
    anchors = Anchors(authorities=(pieces[2],), crls=(pieces[3], pieces[4]), site="lab")
    found = verify_untrusted(chain, anchors, role=Role.WORKER, now=NOW)
    if isinstance(found, Certified):
        assert (found.name, found.role) == ("lab-1", Role.WORKER)
        assert chain[:2] == CHAIN, "nothing else was signed"
    else:
        assert found.decision is Decision.NO


def proxies(data: bytes) -> None:
    cut = Cutter(data)
    with contextlib.suppress(BadMessage):
        info = decode_info_untrusted(cut.piece())
        assert info.path_length is None or 0 <= info.path_length < 128
    if cut.number(8) == 0:
        with contextlib.suppress(RefusedError, BadMessage):
            check_proxy((cut.mutated(LEAF),), public_key=cut.piece(), now=NOW)


# --- one conversation -----------------------------------------------------------------


def frames(data: bytes) -> None:
    whole, pieces = FrameReader(limit=4096), FrameReader(limit=4096)
    assert _frames_of(whole, (data,)) == _frames_of(
        pieces, (bytes([byte]) for byte in data)
    )


def _frames_of(reader: FrameReader, parts) -> list[object]:
    found: list[object] = []
    try:
        for part in parts:
            reader.receive_untrusted(part)
            while (frame := reader.next_untrusted()) is not None:
                found.append(frame)
    except BadMessage as error:
        return [*found, str(error)]
    return [*found, reader.leftover()]


def messages(data: bytes) -> None:
    cut = Cutter(data)
    kind = cut.one_of(list(wire.NAMES))
    with contextlib.suppress(BadMessage):
        value = parse_untrusted(cut.rest())
        body = convert_untrusted(value, kind)
        again = parse_untrusted(wire.encode(body))
        assert convert_untrusted(again.get("b", {}), kind) == body


def machine(us: Identity, them: Identity, *, mode: Mode = Mode.LEAP) -> Handshake:
    role = Role.MASTER if us is MASTER else Role.WORKER
    return Handshake(
        side=Side.CLIENT if us is MASTER else Side.SERVER,
        ours=Ourselves(role=role, name=NodeName(us.name), key_id=us.key_id, mode=mode),
        meeting=Meeting(
            leaf=LEAVES[them.name],
            address="192.0.2.7:7472",
            preamble_hash=PREAMBLE,
            nonce=NONCE,
            now=NOW,
        ),
    )


def _envelope(kind: str, fields: dict[str, object]) -> bytes:
    return encode_frame(as_json({"t": kind, "b": fields}), limit=2**20)


HELLO = msgspec.json.decode(machine(MASTER, WORKER).hello()[4:])["b"]


def hello(data: bytes) -> None:
    """A HELLO of which some fields are not as they were."""
    cut = Cutter(data)
    server = machine(WORKER, MASTER)
    fields = cut.mutated_fields(HELLO)
    if cut.number(4) == 0:
        fields |= {"mode": "x509", "chain": [cut.text()], "node": cut.text()}
    with contextlib.suppress(BadMessage):
        (known,) = server.receive_untrusted(_envelope("hello", fields))
        assert known.peer.key == MASTER.public
        assert len(server.binding) == 32
        assert len(str(known.peer.name)) <= 64


HONEST: dict[str, dict[str, object]] = {
    "verdict": {"decision": "ok", "reason": "known", "detail": ""},
    "pair": {"commit": "00" * 32, "nonce": "00" * 16},
    "join": {"token": "abcdefgh", "mac": "00" * 32},
    "gss": {"token": "YII="},
    "hello": HELLO,
    "beat": {},
}


def handshake(data: bytes) -> None:
    """After an honest HELLO: whatever may come, all at once and in pieces."""
    cut = Cutter(data)
    stream = _envelope("hello", HELLO)
    for _ in range(cut.number(4)):
        kind = cut.one_of(list(HONEST))
        fields = HONEST[kind]
        if cut.number(2):
            fields = cut.mutated_fields(fields)
        stream += _envelope(kind, fields)
    stream += cut.piece()
    assert _handshake((stream,)) == _handshake(cut.pieces(stream))


def _handshake(parts) -> list[object]:
    server = machine(WORKER, MASTER)
    server.hello()
    events: list[object] = []
    try:
        for part in parts:
            events += server.receive_untrusted(part)
            if server.peer is not None and server.said is None:
                server.decide(Verdict(Decision.PENDING, Reason.UNKNOWN))
    except (BadMessage, RefusedError) as error:
        return [type(error).__name__, str(error)]
    assert not server.established, "we never said ok"
    return [repr(event) for event in events]


def session(data: bytes) -> None:
    cut = Cutter(data)
    stream = b""
    for _ in range(cut.number(4)):
        kind = cut.one_of(list(wire.TYPES))
        envelope = {"t": kind, "n": cut.number(3), "re": cut.number(3)}
        envelope["b"] = cut.json_value() if cut.number(2) else {}
        stream += encode_frame(as_json(envelope), limit=2**20)
    stream += cut.piece()
    assert _session((stream,)) == _session(cut.pieces(stream))


def _session(parts) -> list[str]:
    ours = Session(now=0.0)
    ours.request(wire.Done(), 0.0)
    events: list[str] = []
    try:
        for part in parts:
            events += map(repr, ours.receive_untrusted(part, 1.0))
            assert len(ours.unsent()) <= limits.UNSENT_BYTES
    except BadMessage as error:
        events.append(str(error))
    return events


def streams(data: bytes) -> None:
    one, other = StreamReader(), StreamReader()
    assert _stream(one, (data,)) == _stream(other, (bytes([b]) for b in data))


def _stream(reader: StreamReader, parts) -> object:
    found: list[object] = []
    try:
        for part in parts:
            found += reader.receive_untrusted(part)
    except BadMessage as error:
        return str(error)
    return found


def statements(data: bytes) -> None:
    cut = Cutter(data)
    honest = WORKER.sign(statement(MASTER.key_id))
    sig = cut.mutated(honest)
    with contextlib.suppress(BadMessage):
        key = node_key_untrusted(
            base64.b64encode(WORKER.public.raw).decode(),
            base64.b64encode(sig).decode(),
            tls_key=MASTER.key_id,
        )
        assert (key, sig) == (WORKER.public, honest)
    with contextlib.suppress(BadMessage):
        body = wire.Rotate(key=cut.piece(), sig=cut.piece())
        next_key_untrusted(body, MASTER.key_id, bytes(32))
        raise AssertionError(data)


# --- the network ----------------------------------------------------------------------

TXT = {
    "v": "1",
    "n": "lab-1",
    "k": base64.b64encode(WORKER.public.raw).decode().rstrip("="),
    "m": "leap",
    "c": "4",
    "r": "8192",
    "p": "7472",
    "a": "10.0.0.2,fe80::1",
    "t": str(int(NOW)),
    "x": str(int(NOW) + 3600),
    "i": base64.b64encode(bytes(8)).decode().rstrip("="),
}
INSTANCE = instance_name(WORKER.key_id)


def announcement(data: bytes) -> None:
    """A TXT that is not signed, or is signed by its own key with odd values in it."""
    cut = Cutter(data)
    txt = dict(TXT)
    for _ in range(1 + cut.number(3)):
        txt[cut.one_of(list(TXT))] = cut.text()
    raw: dict[bytes, bytes | None] = {
        key.encode(): value.encode("utf-8", "surrogateescape")
        for key, value in txt.items()
    }
    raw[b"s"] = cut.piece()
    if cut.number(8) == 0:
        with contextlib.suppress(UnicodeEncodeError, OverflowError):
            signature = WORKER.sign(signed_bytes(Role.WORKER, INSTANCE, txt))
            raw[b"s"] = base64.b64encode(signature).rstrip(b"=")
    claims_untrusted(raw)
    with contextlib.suppress(BadMessage):
        found = decode_untrusted(Role.WORKER, INSTANCE, raw)
        assert found.key == WORKER.public
        assert 0 < len(found.addresses) <= limits.ANNOUNCED_ADDRESSES


# --- words and files ------------------------------------------------------------------


def words(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(BadMessage):
        assert node_name_untrusted(text).isascii()
    with contextlib.suppress(BadMessage):
        address = Address.parse_untrusted(text)
        assert Address.parse_untrusted(str(address)) == address
        assert address.source
        assert str(address).isprintable()
    with contextlib.suppress(BadMessage):
        assert str(KeyId.parse_untrusted(text)) == text
    with contextlib.suppress(BadMessage):
        token = JoinToken.parse_untrusted(text)
        assert JoinToken.parse_untrusted(str(token)) == token
    algorithm, _, encoded = text.partition(" ")
    with contextlib.suppress(BadMessage):
        assert PublicKey.parse_untrusted(algorithm, encoded).openssh
    with contextlib.suppress(BadMessage):
        openssh_key_id_untrusted(algorithm, encoded)
    with contextlib.suppress(BadMessage):
        expiry_untrusted(text)


def _line(data: bytes, *honest: str) -> str:
    """One of the honest lines, broken; or any line at all."""
    cut = Cutter(data)
    which = cut.number(len(honest) + 1)
    raw = cut.rest() if which == len(honest) else cut.mutated(honest[which].encode())
    # As files are read: to the end of the line, whatever the bytes are.
    return raw.partition(b"\n")[0].decode("utf-8", "surrogateescape")


KNOWN = (
    f"lab-1 {WORKER.public.openssh} via=sas added=20261120 mode=leap proto=1",
    (
        f"lab-1 {WORKER.public.openssh} via=token:abcdefgh groups=A,!B "
        "from=10.0.0.0/8,fe80::/10 expiry-time=20271231120000Z users=a last=20261121"
    ),
    f"@revoked * {WORKER.public.openssh} stolen laptop",
    f"@cert-authority lab {WORKER.public.openssh} site CA",
)


def trust_lines(data: bytes) -> None:
    try:
        found = parse_line_untrusted(_line(data, *KNOWN), 7)
    except RefusedLineError:
        return
    if isinstance(found, KnownPeer):
        try:
            text = known_line(found)
        except BadMessage:
            return  # what cannot be written back as it was is not written
        assert parse_line_untrusted(text, 7) == found
    elif isinstance(found, RevokedKey):
        again = parse_line_untrusted(revoked_line(found.openssh, found.comment), 7)
        assert isinstance(again, RevokedKey)
        assert again.key_id == found.key_id


AUTHORIZED = (
    (
        'users="alice+render",from="192.0.2.0/24,!192.0.2.7",groups="*",'
        f'expiry-time="20271231Z" {WORKER.public.openssh} alice@desk'
    ),
    f'cert-authority,principals="aemesh://lab/master/*" {WORKER.public.openssh} ca',
)
PRINCIPALS = ("alice@EXAMPLE.ORG users=alice groups=*", "# nobody")


def authorized_lines(data: bytes) -> None:
    with contextlib.suppress(RefusedLineError):
        parse_authorized_untrusted(_line(data, *AUTHORIZED), 7)
    with contextlib.suppress(RefusedLineError):
        parse_principal_untrusted(_line(data, *PRINCIPALS), 7)
    cut = Cutter(data)
    with contextlib.suppress(BadMessage):
        terms_untrusted({"from": cut.text(), "groups": cut.text()})


REQUEST = {
    "role": "worker",
    "name": "lab-1",
    "algorithm": "ssh-ed25519",
    "key": WORKER.public.openssh.split()[1],
    "address": "10.0.0.2:7472",
    "reason": "unknown",
    "asked_at": NOW,
    "code": "a-b-c-d",
    "tries": 1,
}
RECORD = {
    "role": "worker",
    "count": 2,
    "issued_at": NOW,
    "expires_at": NOW + 60,
    "terms": {"groups": ["A"], "sources": [], "users": [], "expires_at": None},
    "names": [],
    "used_by": [{"key": str(WORKER.key_id), "name": "lab-1", "at": NOW}],
    "revoked": False,
    "secret": "00" * 16,
}


def files(data: bytes) -> None:
    """The two files of JSON that a node reads of its own folder."""
    cut = Cutter(data)
    for honest, parse in (
        (REQUEST, pending._parse_untrusted),
        (RECORD, lambda one: tokenfile._parse_untrusted("abcdefgh", one)),
    ):
        fields = as_json(cut.mutated_fields(honest))
        raw = cut.mutated(fields) if cut.number(2) else fields
        with contextlib.suppress(BadMessage):
            parse(raw)


TARGETS: dict[str, Target] = {
    "preamble": Target(preamble, (encode_preamble(CHAIN),), 12),
    "certificate": Target(certificate, (b"\0\1\2\3",), 6),
    "chains": Target(chains, (b"\5", b"\0\0\3\1"), 2),
    "proxies": Target(proxies, (bytes([17]) + encode_info(0),), 10),
    "frames": Target(frames, (encode_frame(b"x", limit=9) * 3,), 12),
    "messages": Target(messages, (b'\0{"v": 1}', b'\7{"job": "j"}'), 12),
    "hello": Target(hello, (b"\0\0\1\2",), 8),
    "handshake": Target(handshake, (b"\3\0\0\1\0\2\0",), 3),
    "session": Target(session, (b"\3\1\0\0\0\2\0\0\0",), 4),
    "streams": Target(streams, (encode_frame(b"\1x", limit=9),), 10),
    "statements": Target(statements, (b"\0\0\0",), 4),
    "announcement": Target(announcement, (b"\0\1\4lab2",), 6),
    "words": Target(
        words,
        (b"10.0.0.2:1", b"[fe80::1%eth0]:2", str(WORKER.key_id).encode()),
        12,
    ),
    "trust_lines": Target(trust_lines, (b"\0\0\0\3", b"\4@revoked x"), 10),
    "authorized_lines": Target(authorized_lines, (b"\0\0\0\3",), 8),
    "files": Target(files, (b"\0\0\1x",), 6),
}
