"""Roles, modes, verdicts, and what a node remembers of its peers."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName


class Role(enum.Enum):
    """Which of the two a node is; each talks only to the other."""

    WORKER = "worker"
    MASTER = "master"

    @property
    def other(self) -> Role:
        """The role that this one talks to."""
        return Role.MASTER if self is Role.WORKER else Role.WORKER


class Mode(enum.Enum):
    """How peers are authorized, weakest first; each side requires its own."""

    OPEN = "open"
    LEAP = "leap"
    TOKEN = "token"  # noqa: S105 - the name of a mode
    GSS = "gss"
    X509 = "x509"


class Decision(enum.Enum):
    """What a side says of the other: work together, wait for a person, or part."""

    OK = "ok"
    PENDING = "pending"
    NO = "no"


class Reason(enum.Enum):
    """Why a verdict is what it is, by a name for the wire and the audit log."""

    KNOWN = "known"
    ACCEPTED = "accepted"
    FIRST_USE = "first-use"
    OPEN = "open"
    UNKNOWN = "unknown"
    REVOKED = "revoked"
    KEY_CHANGED = "key-changed"
    OWNED = "owned"
    DECLINED = "declined"
    TIMED_OUT = "timed-out"
    MODE = "mode"
    ROLE = "role"
    SELF = "self"
    EXPECTED_OTHER = "expected-other"
    ADDRESS = "address"
    EXPIRED = "expired"
    CLOCK = "clock"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One side's decision with its reason; `detail` is a sentence for people."""

    decision: Decision
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, as far as TLS and HELLO proved it."""

    role: Role
    name: NodeName
    key: PublicKey
    mode: Mode
    address: str

    @property
    def key_id(self) -> KeyId:
        """The fingerprint of the peer's key."""
        return self.key.key_id


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """One line of known_workers or known_masters."""

    name: NodeName
    key: PublicKey
    via: str  # tofu, accept, flag; later sas, token:<id>, gss:<principal>
    added: str  # YYYYMMDD
    mode: Mode = Mode.LEAP
    line: int = 0  # where in its file, for messages


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """One ``@revoked`` line: this key is refused under every name."""

    key: PublicKey
    comment: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class TrustBook:
    """What one node remembers of the nodes of the other role."""

    known: tuple[KnownPeer, ...] = ()
    revoked: tuple[RevokedKey, ...] = ()

    def by_key(self, key_id: KeyId) -> KnownPeer | None:
        """Return the line of this key, if there is one."""
        return next((p for p in self.known if p.key.key_id == key_id), None)

    def by_name(self, name: NodeName) -> KnownPeer | None:
        """Return the line of this name, if there is one."""
        return next((p for p in self.known if p.name == name), None)


@dataclass(frozen=True, slots=True)
class TrustRequest:
    """A peer that waits until a person says whether to trust it."""

    role: Role  # the role of the peer that asks
    name: NodeName
    key: PublicKey
    address: str
    reason: Reason
    asked_at: float  # seconds since 1970

    @property
    def id(self) -> str:
        """A short name to type: the first eight characters of the key's label."""
        return self.key.key_id.label[:8]
