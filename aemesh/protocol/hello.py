"""HELLO: who each side says it is, held against what TLS has proved of it."""

from __future__ import annotations

import base64
import binascii
import enum
from dataclasses import dataclass, field
from typing import TypeVar

from aemesh import limits
from aemesh.errors import BadMessage, quoted
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName, node_name_untrusted
from aemesh.model.trust import Mode, Peer, Proof, Role
from aemesh.protocol import wire
from aemesh.protocol.certificate import Leaf
from aemesh.protocol.nodekey import node_key_untrusted

VERSION = 1
NONCE_BYTES = 16
E = TypeVar("E", bound=enum.Enum)


class Purpose(enum.Enum):
    """What a connection is for: the link of two nodes, a job's stream, a question."""

    CONTROL = "control"
    STREAM = "stream"
    ASK = "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ourselves:
    """What we say of ourselves in HELLO.

    `key_id` is the fingerprint of the node key.  In mode x509 `chain` is what we
    enter TLS with; if its leaf has another key, `node_key` and `node_sig` say whose
    it is (see `aemesh.protocol.nodekey`).
    """

    role: Role
    name: NodeName
    key_id: KeyId
    mode: Mode
    run: str = ""
    features: tuple[str, ...] = ()
    chain: tuple[bytes, ...] = ()
    tls_key: KeyId | None = None
    node_key: PublicKey | None = None
    node_sig: bytes = field(default=b"", repr=False)

    @property
    def tls_key_id(self) -> KeyId:
        """The fingerprint of the key that TLS proves of us."""
        return self.tls_key or self.key_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Meeting:
    """What a HELLO is held against: the connection as TLS has left it."""

    leaf: Leaf  # of the peer
    address: str  # of the peer
    preamble_hash: str
    nonce: bytes  # ours
    now: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Heard:
    """A HELLO that agrees with TLS; `skew` is the peer's clock minus ours, seconds."""

    peer: Peer
    nonce: bytes
    skew: float
    purpose: Purpose
    asks: frozenset[Proof]


def encode_hello(
    ours: Ourselves, meeting: Meeting, *, purpose: Purpose, asks: frozenset[Proof]
) -> wire.Hello:
    """Return our HELLO to whoever TLS showed."""
    statement = ours.node_key is not None
    return wire.Hello(
        v=VERSION,
        role=ours.role.value,
        name=ours.name,
        mode=ours.mode.value,
        me=str(ours.tls_key_id),
        you=str(meeting.leaf.key_id),
        pre=meeting.preamble_hash,
        nonce=meeting.nonce.hex(),
        now=meeting.now,
        purpose=purpose.value,
        feat=ours.features,
        run=ours.run,
        asks=tuple(sorted(proof.value for proof in asks)),
        chain=tuple(base64.b64encode(der).decode() for der in ours.chain),
        node=_base64(ours.node_key.raw) if ours.node_key else "",
        node_sig=_base64(ours.node_sig) if statement else "",
    )


def hello_untrusted(hello: wire.Hello, ours: Ourselves, meeting: Meeting) -> Heard:
    """Return what a HELLO comes to, or raise `BadMessage` if TLS says otherwise."""
    if hello.v != VERSION:
        msg = f"peer speaks version {hello.v}, we speak {VERSION}"
        raise BadMessage(msg)
    role = enum_untrusted(Role, hello.role)
    mode = enum_untrusted(Mode, hello.mode)
    purpose = enum_untrusted(Purpose, hello.purpose)
    _compare("its own key", hello.me, meeting.leaf.key_id)
    _compare("our key", hello.you, ours.tls_key_id)
    if hello.pre != meeting.preamble_hash:
        msg = "the preamble was altered on the way"
        raise BadMessage(msg)
    key = _node_key(hello, mode, meeting.leaf)
    if key.key_id == ours.key_id:
        msg = "the peer has our own key: a cloned state directory"
        raise BadMessage(msg)
    if role is not ours.role.other:
        msg = f"a {ours.role.value} talks to a {ours.role.other.value},"
        msg += f" the peer is a {role.value}"
        raise BadMessage(msg)
    peer = Peer(
        role=role,
        name=node_name_untrusted(hello.name),
        key=key,
        mode=mode,
        address=meeting.address,
        chain=_chain(hello, mode, meeting.leaf),
        run=_run(hello.run),
    )
    known = {proof.value: proof for proof in Proof}
    asks = frozenset(known[ask] for ask in hello.asks if ask in known)
    skew = hello.now - meeting.now
    return Heard(peer, nonce_untrusted(hello.nonce), skew, purpose, asks)


def nonce_untrusted(text: str) -> bytes:
    """Return a nonce of 16 bytes from its hex, or raise `BadMessage`."""
    # `bytes.fromhex` passes over blanks: what is left of 32 characters may be less.
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        nonce = b""
    if len(nonce) != NONCE_BYTES:
        msg = f"expected {NONCE_BYTES} bytes of hex as nonce, got {quoted(text)}"
        raise BadMessage(msg)
    return nonce


def enum_untrusted(kind: type[E], text: str) -> E:
    """Return the member of this value, or raise `BadMessage` naming all there are."""
    try:
        return kind(text)
    except ValueError:
        choices = ", ".join(str(e.value) for e in kind)
        msg = f"unknown {kind.__name__.lower()} {quoted(text)}; known: {choices}"
        raise BadMessage(msg) from None


def _node_key(hello: wire.Hello, mode: Mode, leaf: Leaf) -> PublicKey:
    """Return the node key: the one that TLS proved, or the one that vouches for it."""
    if hello.node and mode is Mode.X509:
        return node_key_untrusted(hello.node, hello.node_sig, tls_key=leaf.key_id)
    if hello.node:
        msg = f"a node key beside that of TLS, in mode {mode.value}"
        raise BadMessage(msg)
    if leaf.node_key is None:
        msg = "the key of TLS is no node key, and HELLO brings none"
        raise BadMessage(msg)
    return leaf.node_key


def _chain(hello: wire.Hello, mode: Mode, leaf: Leaf) -> tuple[bytes, ...]:
    """Return the chain of mode x509; its first certificate is the one in TLS."""
    if mode is not Mode.X509:
        if hello.chain:
            msg = f"a certificate chain in mode {mode.value}"
            raise BadMessage(msg)
        return ()
    try:
        chain = tuple(base64.b64decode(one, validate=True) for one in hello.chain)
    except (binascii.Error, ValueError):
        chain = ()
    if not chain or chain[0] != leaf.der:
        msg = "the certificate chain of HELLO does not begin with that of TLS"
        raise BadMessage(msg)
    if any(len(der) > limits.PREAMBLE_CERT_BYTES for der in chain):
        msg = f"a certificate of more than {limits.PREAMBLE_CERT_BYTES} bytes"
        raise BadMessage(msg)
    return chain


def _run(text: str) -> str:
    if not text.isascii() or not text.isprintable():
        msg = f"{quoted(text)} names no run of a process"
        raise BadMessage(msg)
    return text


def _compare(what: str, said: str, proved: KeyId) -> None:
    if said != str(proved):
        msg = f"HELLO says that {what} is {quoted(said)}; TLS proved {proved}"
        raise BadMessage(msg)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
