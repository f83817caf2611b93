"""Fuzzed: announcements, the words that people type, and the lines of files."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import msgspec

from aemesh import limits
from aemesh.engines.dask.talk import said_untrusted
from aemesh.errors import BadMessage, UsageError
from aemesh.host.trust import pending, tokenfile
from aemesh.host.trust.authorizedlines import (
    parse_authorized_untrusted,
    parse_principal_untrusted,
)
from aemesh.host.trust.trustlines import (
    RefusedLineError,
    VoidLine,
    changed_line,
    known_line,
    line_name,
    parse_line_untrusted,
    revoked_line,
)
from aemesh.host.trust.trustoptions import (
    expiry_untrusted,
    terms_untrusted,
    terms_words,
)
from aemesh.master import control
from aemesh.master.control_wire import Certify, Exec, Move, OpenGroup
from aemesh.model.address import Address
from aemesh.model.jointoken import JoinToken
from aemesh.model.key import KeyId, PublicKey, openssh_key_id_untrusted
from aemesh.model.names import GroupName, node_name_untrusted
from aemesh.model.trust import KnownPeer, PinnedAuthority, RevokedKey, Role, Terms
from aemesh.policy.terms import allow_group, breach
from aemesh.protocol.announcement import (
    announced_addresses,
    claims_untrusted,
    decode_untrusted,
    encode,
    instance_name,
    signed_bytes,
)
from aemesh.testing.pki import NOW
from tests.fuzz.allowed import allowed, check_told
from tests.fuzz.cutter import Cutter, as_json
from tests.fuzz.material import MASTER, NEXT, WORKER

# --- the network ----------------------------------------------------------------------


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


TXT = {
    "v": "1",
    "n": "lab-1",
    "k": _base64(WORKER.public.raw),
    "m": "leap",
    "c": "4",
    "r": "8192",
    "p": "7472",
    "a": "10.0.0.2,fe80::1",
    "t": str(int(NOW) * 1000),
    "x": str(int(NOW) + 3600),
    "i": _base64(bytes(8)),
}
ODD_TXT = (
    *("0", "01", "+1", "1_0", "99999", "65536", "9999999999", "", " ", "x" * 65),
    *("::1", "::ffff:10.0.0.1", "fe80::1%eth0", "FE80::1", "10.0.0.2,10.0.0.2"),
    *(",", "10.0.0.1," * 9, "open", "x509", "\x1b[2J", "é", "-rf", "@x", "1" * 2000),
    _base64(NEXT.public.raw),
)
INSTANCE = instance_name(WORKER.key_id)


def announcement(data: bytes) -> bool:
    """A TXT with odd values, mostly signed by its own key."""
    cut = Cutter(data)
    txt = dict(TXT)
    for _ in range(cut.number(4)):
        key = cut.one_of(list(TXT))
        match cut.number(3):
            case 0:
                txt[key] = cut.one_of(ODD_TXT)
            case 1:
                txt[key] = cut.mutated(TXT[key].encode()).decode("latin-1")
            case _:
                txt[key] = cut.text()
    raw: dict[bytes, bytes | None] = {
        key.encode(): value.encode("utf-8", "surrogateescape")
        for key, value in txt.items()
    }
    raw[b"s"] = _signature(cut, txt)
    if cut.number(4) == 3:
        raw[cut.piece()] = None if cut.number(2) else cut.piece()
    claims = claims_untrusted(raw)
    check_told(claims.name + " ".join(claims.addresses))
    assert len(claims.addresses) <= limits.ANNOUNCED_ADDRESSES
    with allowed(BadMessage):
        found = decode_untrusted(Role.WORKER, INSTANCE, raw)
        assert found.key == WORKER.public
        assert 0 < len(found.addresses) <= limits.ANNOUNCED_ADDRESSES
        if announced_addresses(found.addresses) == found.addresses:
            txt["s"] = raw[b"s"].decode()
            assert encode(found, sign=WORKER.sign) == txt
        return True
    return False


def _signature(cut: Cutter, txt: dict[str, str]) -> bytes:
    try:
        signed = signed_bytes(Role.WORKER, INSTANCE, txt)
    except (UnicodeEncodeError, OverflowError):
        return b"A"
    if cut.number(8) == 7:
        return cut.piece()
    signature = WORKER.sign(signed)
    return _base64(cut.mutated(signature) if cut.number(8) == 7 else signature).encode()


# --- words ----------------------------------------------------------------------------

TOKEN = JoinToken.of(MASTER.key_id, "abcdefgh", bytes(range(16)))


def words(data: bytes) -> bool:
    """Whatever people paste: a name, an address, a fingerprint, a key, a time."""
    text = data.decode("utf-8", "surrogateescape")
    taken = []
    with allowed(BadMessage):
        taken.append(node_name_untrusted(text))
        assert text.isascii()
    with allowed(BadMessage):
        address = Address.parse_untrusted(text)
        assert Address.parse_untrusted(str(address)) == address
        check_told(f"{address} {address.source}")
        taken.append(address)
    with allowed(BadMessage):
        taken.append(KeyId.parse_untrusted(text))
        assert str(taken[-1]) == text
    algorithm, _, encoded = text.partition(" ")
    with allowed(BadMessage):
        taken.append(PublicKey.parse_untrusted(algorithm, encoded))
        assert taken[-1].openssh == text
        assert openssh_key_id_untrusted(algorithm, encoded) == taken[-1].key_id
    with allowed(BadMessage):
        taken.append(openssh_key_id_untrusted(algorithm, encoded))
    with allowed(BadMessage):
        taken.append(expiry_untrusted(text))
    return bool(taken)


HONEST_WORDS = (
    *("10.0.0.2:7472", "[fe80::1%eth0]:7472", "lab-1", "20271231120000Z"),
    *(str(WORKER.key_id), WORKER.public.openssh),
)


def broken_words(data: bytes) -> bool:
    cut = Cutter(data)
    return words(cut.mutated(cut.one_of(HONEST_WORDS).encode()))


def join_tokens(data: bytes) -> bool:
    """Nothing but the token itself is taken for it, and no error repeats it."""
    cut = Cutter(data)
    honest = str(TOKEN)
    text = cut.mutated(honest.encode()).decode("utf-8", "surrogateescape")
    if cut.number(4) == 3:  # one that is right, of other bytes
        raw = cut.bytes(32).ljust(32, b"\0")
        text = str(JoinToken(raw[:16], cut.one_of(("abcdefgh", "22222222")), raw[16:]))
    try:
        found = JoinToken.parse_untrusted(text)
    except BadMessage as error:
        check_told(str(error))
        assert text[-32:-4] not in str(error) or len(text) < 32
        assert text.strip().upper() != honest
        return False
    assert JoinToken.parse_untrusted(str(found)) == found
    assert str(found) == text.strip().upper()
    assert found.secret.hex() not in repr(found)
    return True


# --- trust files ----------------------------------------------------------------------


def _line(cut: Cutter, honest: tuple[str, ...]) -> str:
    """One of the honest lines, broken; or any line at all."""
    which = cut.number(len(honest) + 1)
    raw = cut.rest() if which == len(honest) else cut.mutated(honest[which].encode())
    # As files are read: to the end of the line, whatever the bytes are.
    return raw.partition(b"\n")[0].decode("utf-8", "surrogateescape")


OPTIONS = (
    *("via=sas", "via=token:abcdefgh", "added=20261120", "last=20261121", "mode=x509"),
    *("mode=leap", "proto=1", "groups=A,!B", "groups=*", "from=10.0.0.0/8,fe80::/10"),
    *("from=!10.0.0.1,10.*", "expiry-time=20271231120000Z", "expiry-time=20271231"),
    *("users=a,b", "users=", "added=20261350", "mode=", "x", "groups=,", "via=a b"),
)
KNOWN = (
    f"lab-1 {WORKER.public.openssh} via=sas added=20261120 mode=leap proto=1",
    (
        f"lab-1 {WORKER.public.openssh} via=token:abcdefgh groups=A,!B "
        "from=10.0.0.0/8,fe80::/10 expiry-time=20271231120000Z users=a last=20261121"
    ),
    f"@revoked * {WORKER.public.openssh} stolen laptop",
    f"@cert-authority lab {WORKER.public.openssh} site CA",
)


def trust_lines(data: bytes) -> bool:
    cut = Cutter(data)
    text = _line(cut, KNOWN)
    for _ in range(cut.number(4)):
        text += " " + cut.one_of(OPTIONS)
    with allowed(RefusedLineError):
        found = parse_line_untrusted(text, 7)
        if isinstance(found, KnownPeer):
            _check_known(found, text)
            return True
        if isinstance(found, RevokedKey):
            written = revoked_line(found.openssh, found.comment)
            again = parse_line_untrusted(written, 7)
            assert isinstance(again, RevokedKey)
            assert again.key_id == found.key_id
            check_told(written)
            return True
        if isinstance(found, PinnedAuthority):
            assert found.key_id == openssh_key_id_untrusted(*text.split()[2:4])
            return True
        if isinstance(found, VoidLine):
            check_told(found.why)
            _check_void(text)
    return False


def _check_void(text: str) -> None:
    """What was to revoke a key must never be passed over as trusting nobody."""
    first = text.split(maxsplit=1)[0]
    visible = "".join(c for c in first if c.isascii() and c.isprintable())
    assert not visible.startswith("@"), ascii(text)


def _check_known(found: KnownPeer, text: str) -> None:
    assert line_name(text) == found.name
    assert not text.lstrip().startswith(("@", "#"))
    again = parse_line_untrusted(changed_line(text, {"last": "20261122"}), 7)
    assert again == replace(found, last="20261122")
    _check_terms(found.terms)
    with allowed(BadMessage):  # a time before the year 1000 cannot be written
        assert parse_line_untrusted(known_line(found), 7) == found


def _check_terms(terms: Terms) -> None:
    """What was taken can be judged by."""
    for host in ("10.0.0.1", "fe80::1%eth0"):
        breach(terms, host=host, user="alice", now=NOW)
    allow_group([terms], GroupName("A"))


AUTHORIZED = (
    (
        'users="alice+render",from="192.0.2.0/24,!192.0.2.7",groups="*",'
        f'expiry-time="20271231Z" {WORKER.public.openssh} alice@desk'
    ),
    f'cert-authority,principals="aemesh://lab/master/*" {WORKER.public.openssh} ca',
    f"{WORKER.public.openssh} alice@desk",
    f'groups="a\\"b" {WORKER.public.openssh}',
)
PRINCIPALS = ("alice@EXAMPLE.ORG users=alice groups=*", "host/a.b@X from=10.*")


def authorized_lines(data: bytes) -> bool:
    cut = Cutter(data)
    text = _line(cut, AUTHORIZED)
    return _taken(parse_authorized_untrusted, text)


def principal_lines(data: bytes) -> bool:
    cut = Cutter(data)
    text = _line(cut, PRINCIPALS)
    for _ in range(cut.number(4)):
        text += " " + cut.one_of(OPTIONS)
    return _taken(parse_principal_untrusted, text)


def _taken(parse: Callable[[str, int], object], text: str) -> bool:
    with allowed(RefusedLineError):
        found = parse(text, 7)
        if isinstance(found, VoidLine):
            check_told(found.why)
        elif found is not None:
            _check_terms(found.terms)
            return True
    return False


def terms(data: bytes) -> bool:
    """The options that limit trust: what is taken is written as it was read."""
    cut = Cutter(data)
    options = {
        "groups": cut.mutated(b"A,!B*").decode("latin-1"),
        "from": cut.mutated(b"10.0.0.0/8,!10.*,fe80::/10").decode("latin-1"),
        "users": cut.mutated(b"alice,b$").decode("latin-1"),
        "expiry-time": cut.mutated(b"20271231120000Z").decode("latin-1"),
    }
    with allowed(BadMessage):
        found = terms_untrusted(options)
        _check_terms(found)
        pairs = dict(word.split("=", 1) for word in terms_words(found))
        assert terms_untrusted(pairs) == found
        return True
    return False


# --- files and requests of JSON -------------------------------------------------------

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


def _raw(cut: Cutter, honest: dict[str, object]) -> bytes:
    return cut.mutated(as_json(cut.mutated_fields(honest)))


def request_files(data: bytes) -> bool:
    with allowed(BadMessage):
        found = pending._parse_untrusted(_raw(Cutter(data), REQUEST))
        check_told(f"{found.name} {found.address} {found.code} {found.asked_at}")
        assert len(found.id) == 8
        return True
    return False


def token_files(data: bytes) -> bool:
    with allowed(BadMessage):
        found = tokenfile._parse_untrusted("abcdefgh", _raw(Cutter(data), RECORD))
        assert len(found.secret) == 16
        assert found.secret.hex() not in repr(found)
        return True
    return False


class _Request:
    """A request of which `control._body` reads nothing but its body."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    async def stream(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


BODIES: list[tuple[type[msgspec.Struct], dict[str, object]]] = [
    (OpenGroup, {"name": "A", "engine": "dask"}),
    (Move, {"worker": "lab-1", "group": "A"}),
    (Certify, {"csr": "-----BEGIN"}),
    (Exec, {"argv": ["true"], "env": {"A": "b"}}),
]


def control_bodies(data: bytes) -> bool:
    """The body of a request to the control API, in pieces."""
    cut = Cutter(data)
    kind, honest = cut.one_of(BODIES)
    raw = _raw(cut, honest)
    task = control._body(_Request(cut.pieces(raw)), kind)
    with allowed(UsageError):
        try:
            task.send(None)
        except StopIteration as done:
            found = done.value
            assert isinstance(found, kind)
            assert msgspec.json.decode(msgspec.json.encode(found), type=kind) == found
            return True
        raise AssertionError("it waits")
    return False


SAID = {"event": "added", "id": 1, "address": "tcp://10.0.0.1:1", "workers": []}


def dask_lines(data: bytes) -> bool:
    """What a script of a job says, line by line; a job can say anything."""
    cut = Cutter(data)
    raw = _raw(cut, SAID) if cut.number(4) < 3 else cut.rest()
    found = said_untrusted(raw)
    if found is None:
        return False
    assert isinstance(found["event"], str)
    assert json.dumps(found)
    return True
