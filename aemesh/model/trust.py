"""Roles, modes, verdicts, and what a node remembers of its peers."""

from __future__ import annotations

import enum
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property

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

    @property
    def rank(self) -> int:
        """How much this mode proves of a peer (T11): 0, nothing, to 3.

        A token introduces a key, as a leap does; from then on the key itself is the
        proof, and a pin is worth the same in both.
        """
        return _RANK[self]


_RANK = {Mode.OPEN: 0, Mode.LEAP: 1, Mode.TOKEN: 1, Mode.GSS: 2, Mode.X509: 3}


class Proof(enum.Enum):
    """What one side asks for in HELLO, to come before the verdicts."""

    JOIN = "join"  # I have a join token of yours
    PAIR = "pair"  # I do not know you: let us both show a code


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
    CERTIFIED = "certified"
    CERTIFICATE = "certificate"
    CRL = "crl"
    PRINCIPAL = "principal"
    UNLISTED = "unlisted"
    TOKEN = "token"  # noqa: S105 - the name of a reason
    TOKEN_UNKNOWN = "token-unknown"  # noqa: S105
    TOKEN_SPENT = "token-spent"  # noqa: S105
    TOKEN_EXPIRED = "token-expired"  # noqa: S105
    TOKEN_ROLE = "token-role"  # noqa: S105
    TOKEN_KEY = "token-key"  # noqa: S105
    TOKEN_NAME = "token-name"  # noqa: S105
    WEAKER = "weaker"
    SOURCE = "source"
    USER = "user"
    TRIES = "tries"
    CLONE = "clone"
    ENOUGH = "enough"  # the master has all the workers that it wants


@dataclass(frozen=True, slots=True)
class Verdict:
    """One side's decision with its reason; `detail` is a sentence for people."""

    decision: Decision
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a line of trust allows; an empty field allows all.

    `groups` are patterns of group names (``analysis*``, ``!secret``), `sources` are
    networks or patterns of addresses (``192.0.2.0/24``, ``!192.0.2.7``), `users` are
    local users as whom jobs may run; as in sshd's authorized_keys (sshd(8)).
    """

    groups: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    expires_at: float | None = None  # seconds since 1970


@dataclass(frozen=True, slots=True)
class TokenProof:
    """What became of a join token in a handshake.

    `refused` None: both sides have proved that they know its secret.
    """

    id: str
    refused: Reason | None = None
    terms: Terms = Terms()


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection, as far as TLS and HELLO proved it."""

    role: Role
    name: NodeName
    key: PublicKey
    mode: Mode
    address: str
    chain: tuple[bytes, ...] = ()  # X.509, DER, leaf first; TLS proved the leaf's key
    run: str = ""  # what tells two processes of one key apart
    code: str = ""  # four words that both sides show at a first meeting
    token: TokenProof | None = None
    principal: str = ""  # that Kerberos proved, "alice@EXAMPLE.ORG"

    @property
    def key_id(self) -> KeyId:
        """The fingerprint of the peer's key."""
        return self.key.key_id


@dataclass(frozen=True, slots=True)
class KnownPeer:
    """One line of known_workers or known_masters."""

    name: NodeName
    key: PublicKey
    via: str  # prompt, sas, accept, flag, tofu, hand, token:<id>, gss:<principal>, …
    added: str  # YYYYMMDD
    mode: Mode = Mode.LEAP
    line: int = 0  # where in its file, for messages
    last: str = ""  # YYYYMMDD when it was seen last
    terms: Terms = Terms()
    observe: bool = False  # it may ask a master about all that it does


@dataclass(frozen=True, slots=True)
class RevokedKey:
    """One ``@revoked`` line: this key is refused under every name, in every mode.

    It may be of any kind that OpenSSH knows: a certified node's key, or a CA's.
    """

    key_id: KeyId
    openssh: str  # algorithm and base64, as in the file
    comment: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class PinnedAuthority:
    """One ``@cert-authority`` line: for these names only a CA with this key counts.

    The CA's certificate is in x509/; the line keeps somebody who may exchange that file
    from exchanging the CA.
    """

    names: tuple[str, ...]  # patterns of node names
    key_id: KeyId
    comment: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class AuthorizedKey:
    """One line of authorized_masters: who may use this worker, by an administrator.

    With ``cert-authority`` the key is a CA's, and `principals` are patterns of the
    certified identities (``aemesh://lab/master/*``) that the line is about.
    """

    key_id: KeyId
    openssh: str
    terms: Terms = Terms()
    cert_authority: bool = False
    principals: tuple[str, ...] = ()
    comment: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Principal:
    """One line of gss_principals: a Kerberos principal and what it may."""

    name: str  # "alice@EXAMPLE.ORG"
    terms: Terms = Terms()
    line: int = 0


@dataclass(frozen=True, slots=True)
class Anchors:
    """What X.509 is judged by: the CA that signs our peers, and the site's rules.

    All certificates and revocation lists are DER; `dns` is an administrator's
    pattern for company certificates that have no ``aemesh://`` URI.
    """

    authorities: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    crl_required: bool = False
    site: str = ""  # expected in aemesh://SITE/role/name; empty: any
    dns: str = ""  # "*.workers.example.org"; empty: DNS names are not taken


@dataclass(frozen=True)  # without slots: it keeps where its lines are found
class TrustBook:
    """What one node remembers of the nodes of the other role.

    A master of many workers asks about each of them again and again, so no line is
    looked for by going through all.  Of several lines the first counts, unless a
    method says that it returns all.
    """

    known: tuple[KnownPeer, ...] = ()
    revoked: tuple[RevokedKey, ...] = ()
    authorized: tuple[AuthorizedKey, ...] = ()
    principals: tuple[Principal, ...] = ()
    pins: tuple[PinnedAuthority, ...] = ()
    anchors: Anchors | None = None  # None: no X.509 is set up here
    void: int = 0  # lines that trust nobody, for they cannot be read

    @cached_property
    def keys(self) -> frozenset[KeyId]:
        """The keys of all known peers."""
        return frozenset(line.key.key_id for line in self.known)

    def by_key(self, key_id: KeyId) -> KnownPeer | None:
        """Return the line of this key, if there is one."""
        return next(iter(self.lines_of(key_id)), None)

    def by_name(self, name: NodeName) -> KnownPeer | None:
        """Return the first line of this name, if there is one."""
        return next(iter(self.lines_of(name)), None)

    def lines_of(self, *marks: KeyId | NodeName) -> list[KnownPeer]:
        """Return all lines of these keys and names, in the order of the file."""
        places = {at for mark in marks for at in self._places.get(mark, ())}
        return [self.known[at] for at in sorted(places)]

    @property
    def is_owned(self) -> bool:
        """Whether a worker belongs to somebody, be it by a line with a slip in it."""
        return bool(self.known or self.authorized or self.void)

    def authorized_by_key(self, key_id: KeyId) -> AuthorizedKey | None:
        """Return the administrator's line that lets this very key in, if any."""
        return self._authorized.get(key_id)

    def authorizes(self, key_id: KeyId) -> bool:
        """Whether an administrator's line lets this very key in."""
        return key_id in self._authorized

    def is_revoked(self, key_id: KeyId) -> bool:
        """Whether a key is refused under every name."""
        return key_id in self._revoked

    def of_principal(self, name: str) -> tuple[Principal, ...]:
        """Return all lines of this principal."""
        return tuple(self._principals.get(name, ()))

    @cached_property
    def _places(self) -> dict[KeyId | NodeName, list[int]]:
        """Where in `known` the lines of each key, and of each name, are."""
        places: dict[KeyId | NodeName, list[int]] = defaultdict(list)
        for at, line in enumerate(self.known):
            places[line.key.key_id].append(at)
            places[line.name].append(at)
        return places

    @cached_property
    def _authorized(self) -> dict[KeyId, AuthorizedKey]:
        # Backwards, for the first line of a key is the one that counts.
        lines = (line for line in reversed(self.authorized) if not line.cert_authority)
        return {line.key_id: line for line in lines}

    @cached_property
    def _revoked(self) -> frozenset[KeyId]:
        return frozenset(line.key_id for line in self.revoked)

    @cached_property
    def _principals(self) -> dict[str, list[Principal]]:
        lines: dict[str, list[Principal]] = defaultdict(list)
        for line in self.principals:
            lines[line.name].append(line)
        return lines


@dataclass(frozen=True, slots=True)
class TrustRequest:
    """A peer that waits until a person says whether to trust it."""

    role: Role  # the role of the peer that asks
    name: NodeName
    key: PublicKey
    address: str
    reason: Reason
    asked_at: float  # seconds since 1970
    code: str = ""  # four words that both sides show in this meeting
    tries: int = 1  # meetings of this source that nobody confirmed, with this one

    @property
    def id(self) -> str:
        """A short name to type: the first eight characters of the key's label."""
        return self.key.key_id.label[:8]
