"""Whether to work with a peer: one pure function for both roles and every mode.

The rows of `_RULES` are asked in order; the first that has an opinion decides.  What
TLS, HELLO and the proofs after it proved comes in as `Peer`; what the user and the
files say comes in as `TrustPolicy` and `TrustBook`.  Nothing that mDNS said comes in
at all (threat 47).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aemesh import limits
from aemesh.model.address import Address
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.trust import (
    AuthorizedKey,
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Proof,
    Reason,
    Role,
    Terms,
    TrustBook,
    Verdict,
)
from aemesh.policy.openness import is_public
from aemesh.policy.terms import breach, matches
from aemesh.policy.x509 import Certified, verify_untrusted

# A certificate that ends is noticed within five minutes; it had a year to be renewed.
_CHAINS_EVERY = 300.0

_NOTHING = Terms(groups=("!*",))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """What the user asked for when this node was started."""

    role: Role  # ours
    mode: Mode = Mode.LEAP
    trusted_keys: frozenset[KeyId] = frozenset()  # --trust-master, --trust-worker
    accept_first: bool = False  # a worker: imprint on the first master, once
    accept_new: bool = False  # a master: accept unknown workers, unverified
    enrol_until: float | None = None  # after it nobody is accepted at first use
    enrol_from: tuple[str, ...] = ()  # networks, as in `from=`; empty: any
    user: str = ""  # the local user as whom jobs run; empty: none is asked for
    by_token: bool = False  # a worker with a token takes no other introduction
    declined: frozenset[KeyId] = frozenset()  # a person said no in this run

    @property
    def has_window(self) -> bool:
        """Whether first use is for a time or some networks only."""
        return self.enrol_until is not None or bool(self.enrol_from)


@dataclass(frozen=True, slots=True)
class Case:
    """One question to `judge`."""

    peer: Peer
    book: TrustBook
    policy: TrustPolicy
    expected: KeyId | None = None  # whom we meant to dial
    now: float = 0.0  # seconds since 1970

    @property
    def host(self) -> str:
        """The peer's address without its port."""
        return Address.parse_untrusted(self.peer.address).host

    def breach(self, terms: Terms) -> Verdict | None:
        """Return the no of a line's terms, or None if they allow this."""
        return breach(terms, host=self.host, user=self.policy.user, now=self.now)


Rule = Callable[[Case], Verdict | None]


def judge(
    peer: Peer,
    book: TrustBook,
    policy: TrustPolicy,
    *,
    expected: KeyId | None = None,
    now: float = 0.0,
) -> Verdict:
    """Return whether to work with `peer`: ok, pending (a person decides) or no.

    `now` is seconds since 1970; certificates and lines of trust end in time.
    """
    case = Case(peer, book, policy, expected, now)
    for rule in _RULES:
        verdict = rule(case)
        if verdict is not None:
            return verdict
    return Verdict(Decision.PENDING, Reason.UNKNOWN, "a person has to accept the key")


def changed_key_message(peer: Peer, book: TrustBook, *, file: str) -> str:
    """Return the loud message about a known name that came with another key."""
    known = book.by_name(peer.name)
    assert known is not None, "only a known name can come with another key"
    forget = f"aemesh trust forget {peer.name}"
    return "\n".join(
        (
            "@" * 60,
            "@    WARNING: REMOTE IDENTIFICATION HAS CHANGED!".ljust(59) + "@",
            "@" * 60,
            f"The {peer.role.value} {peer.name} at {peer.address} came with the key",
            f"    {peer.key_id}  {peer.key_id.words}",
            f"but {file}:{known.line} has for this name",
            f"    {known.key.key_id}  {known.key.key_id.words}",
            "Somebody may stand between, or the machine was set up anew.",
            f"It was refused.  If you know why the key is new: `{forget}`",
        )
    )


def asks(
    key: PublicKey | None, book: TrustBook, policy: TrustPolicy, *, token: bool
) -> frozenset[Proof]:
    """Return the proofs to ask a peer of this node key for, before anything of it.

    `token` tells that we hold a join token that this very key gave out.  Whoever is
    known needs no proof but its key; whoever is taken or refused without a person
    needs no code.
    """
    if policy.mode is not Mode.LEAP or key is None:
        return frozenset()
    key_id = key.key_id
    if book.by_key(key_id) or book.authorizes(key_id):
        return frozenset()
    if token:
        return frozenset({Proof.JOIN})
    settled = (
        policy.by_token
        or policy.accept_new
        or (policy.accept_first and not policy.has_window)
        or key_id in policy.trusted_keys
        or key_id in policy.declined
        or (policy.role is Role.WORKER and book.is_owned)
    )
    return frozenset() if settled else frozenset({Proof.PAIR})


def terms_of(peer: Peer, book: TrustBook, *, now: float) -> tuple[Terms, ...]:
    """Return the terms under which a peer that was judged ok is let in.

    Each of them has to allow what the peer asks for.
    """
    if peer.mode is Mode.X509:
        certified = _certify(peer, book, now)
        if certified is None:  # it ended since, or was taken back
            return (_NOTHING,)
        line = _authority_line(certified, book)
        return (*_narrowing(peer, book), *((line.terms,) if line else ()))
    if peer.mode is Mode.GSS:
        lines = book.of_principal(peer.principal)
        return (*_narrowing(peer, book), *(each.terms for each in lines))
    known = book.by_key(peer.key_id)
    authorized = book.authorized_by_key(peer.key_id)
    found = (authorized or known) and (authorized, known)
    return tuple(line.terms for line in found or () if line is not None)


def ended_between(book: TrustBook, before: float, now: float) -> bool:
    """Whether something ended in this span, so that peers have to be judged again.

    Lines of trust say when; of certificates and revocation lists it is not looked up:
    peers of mode x509 are judged again at each turn of `_CHAINS_EVERY`.
    """
    terms = [line.terms for line in book.known]
    terms += [line.terms for line in book.authorized]
    terms += [line.terms for line in book.principals]
    ends = (one.expires_at for one in terms)
    if any(end is not None and before < end <= now for end in ends):
        return True
    return book.anchors is not None and before // _CHAINS_EVERY != now // _CHAINS_EVERY


def refuses_chain(
    chain: tuple[bytes, ...], book: TrustBook, *, role: Role, now: float
) -> Verdict | None:
    """Return the no to a chain that is only announced, before TLS is spent on it."""
    certified = _verified(chain, book, role=role, now=now)
    return certified if isinstance(certified, Verdict) else None


def wrong_clock(peer: Peer, *, skew: float) -> Verdict | None:
    """Return the no to a clock that is off, where dates decide; None elsewhere.

    `skew` is the peer's clock minus ours, in seconds.  Certificates and tickets hold
    from one moment to another; a pinned key holds for good.
    """
    if peer.mode not in (Mode.X509, Mode.GSS) or abs(skew) <= limits.CLOCK_SKEW_AFTER:
        return None
    return _no(Reason.CLOCK, f"your clock is off from ours by {skew:.0f} s")


def _role(case: Case) -> Verdict | None:
    wanted = case.policy.role.other
    if case.peer.role is wanted:
        return None
    return _no(Reason.ROLE, f"expected a {wanted.value}")


def _expected(case: Case) -> Verdict | None:
    if case.expected in (None, case.peer.key_id):
        return None
    return _no(Reason.EXPECTED_OTHER, f"{case.expected} was dialled")


def _revoked(case: Case) -> Verdict | None:
    if case.book.is_revoked(case.peer.key_id):
        return _no(Reason.REVOKED, "the key is revoked here")
    return None


def _mode(case: Case) -> Verdict | None:
    ours, theirs = case.policy.mode, case.peer.mode
    if ours is theirs:
        return None
    return _no(Reason.MODE, f"we require {ours.value}, you {theirs.value}")


def _weaker(case: Case) -> Verdict | None:
    """Refuse who was seen in a stronger mode, by its key or by its name (T11)."""
    peer = case.peer
    for line in case.book.lines_of(peer.key_id, peer.name):
        if line.mode.rank > peer.mode.rank:
            seen = f"seen in mode {line.mode.value} before, now in {peer.mode.value}"
            return _no(Reason.WEAKER, seen)
    return None


def _narrowed(case: Case) -> Verdict | None:
    """Where a certificate or a ticket decides, a line of the key may narrow it."""
    if case.policy.mode not in (Mode.X509, Mode.GSS):
        return None
    refusals = map(case.breach, _narrowing(case.peer, case.book))
    return next(filter(None, refusals), None)


def _certified(case: Case) -> Verdict | None:
    """In mode x509 the certificate decides; nothing else lets anybody in."""
    if case.policy.mode is not Mode.X509:
        return None
    peer, book = case.peer, case.book
    certified = _verified(peer.chain, book, role=peer.role, now=case.now)
    if isinstance(certified, Verdict):
        return certified
    if certified.name != peer.name:
        told = f"the certificate is of {certified.name}, HELLO says {peer.name}"
        return _no(Reason.CERTIFICATE, told)
    line = _authority_line(certified, book)
    if line is None and case.policy.role is Role.WORKER and _has_authorities(book):
        told = f"no cert-authority line of authorized_masters has {certified.identity}"
        return _no(Reason.UNLISTED, told)
    refusal = case.breach(line.terms) if line else None
    return refusal or Verdict(Decision.OK, Reason.CERTIFIED, certified.identity)


def _principal(case: Case) -> Verdict | None:
    """In mode gss Kerberos names the peer; a worker has to list a master's user."""
    if case.policy.mode is not Mode.GSS:
        return None
    name = case.peer.principal
    if not name:
        return _no(Reason.PRINCIPAL, "Kerberos proved no principal")
    if case.policy.role is Role.MASTER:
        # The ticket was for this very service: the name is what the KDC vouches for.
        return Verdict(Decision.OK, Reason.PRINCIPAL, name)
    lines = case.book.of_principal(name)
    if not lines:
        return _no(Reason.UNLISTED, f"{name} is not in gss_principals")
    refusal = next(filter(None, (case.breach(line.terms) for line in lines)), None)
    return refusal or Verdict(Decision.OK, Reason.PRINCIPAL, name)


def _changed(case: Case) -> Verdict | None:
    lines = case.book.lines_of(case.peer.name)
    # A key that is being changed has two lines of one name for a while.
    if not lines or any(line.key == case.peer.key for line in lines):
        return None
    return _no(Reason.KEY_CHANGED, "the name is known with another key")


def _open(case: Case) -> Verdict | None:
    if case.policy.mode is not Mode.OPEN:
        return None
    if is_public(case.host):
        return _no(Reason.ADDRESS, "open is for private addresses only")
    return Verdict(Decision.OK, Reason.OPEN)


def _known(case: Case) -> Verdict | None:
    key_id = case.peer.key_id
    lines: tuple[KnownPeer | AuthorizedKey | None, ...] = (
        case.book.authorized_by_key(key_id),
        case.book.by_key(key_id),
    )
    found = [line for line in lines if line is not None]
    if not found:
        return None
    refusal = next(filter(None, (case.breach(line.terms) for line in found)), None)
    return refusal or Verdict(Decision.OK, Reason.KNOWN)


def _declined(case: Case) -> Verdict | None:
    if case.peer.key_id not in case.policy.declined:
        return None
    return _no(Reason.DECLINED, "a person said no")


def _given(case: Case) -> Verdict | None:
    if case.peer.key_id not in case.policy.trusted_keys:
        return None
    return Verdict(Decision.OK, Reason.ACCEPTED, "given on the command line")


def _token(case: Case) -> Verdict | None:
    """A proved token introduces its holder, or its issuer; a bad one nobody."""
    proof = case.peer.token
    if proof is None:
        if case.policy.by_token:
            return _no(Reason.TOKEN_KEY, "the join token is of another master")
        return None
    if proof.refused is not None:
        return _no(proof.refused, _TOKEN_SAYS[proof.refused])
    refusal = case.breach(proof.terms)
    return refusal or Verdict(Decision.OK, Reason.TOKEN, f"join token {proof.id}")


def _owned(case: Case) -> Verdict | None:
    if case.policy.role is Role.MASTER or not case.book.is_owned:
        return None
    return _no(Reason.OWNED, "this worker belongs to another master")


def _first_use(case: Case) -> Verdict | None:
    policy = case.policy
    allowed = policy.accept_first if policy.role is Role.WORKER else policy.accept_new
    if not allowed:
        return None
    # Outside the window or the networks a person is asked, as without the flag.
    window = Terms(sources=policy.enrol_from, expires_at=policy.enrol_until)
    if breach(window, host=case.host, user="", now=case.now):
        return None
    return Verdict(Decision.OK, Reason.FIRST_USE)


# A worker that has a master never comes to `_first_use`: it imprints once.  Who is
# known and was declined was accepted later: nobody is asked about a known key.
_RULES: tuple[Rule, ...] = (
    _role,
    _expected,
    _revoked,
    _mode,
    _narrowed,
    _certified,
    _weaker,
    _changed,
    _principal,
    _known,
    _declined,
    _open,
    _given,
    _token,
    _owned,
    _first_use,
)

_TOKEN_SAYS = {
    Reason.TOKEN_UNKNOWN: "we gave out no such join token",
    Reason.TOKEN_SPENT: "the join token was used as often as it may be",
    Reason.TOKEN_EXPIRED: "the join token has expired",
    Reason.TOKEN_ROLE: "the join token is for the other role",
    Reason.TOKEN_KEY: "the join token is of another master",
    Reason.TOKEN_NAME: "the join token is for other names",
    Reason.REVOKED: "the join token was revoked",
    Reason.FULL: "the use of the join token cannot be written down",
}


def _verified(
    chain: tuple[bytes, ...], book: TrustBook, *, role: Role, now: float
) -> Certified | Verdict:
    if book.anchors is None or not book.anchors.authorities:
        return _no(Reason.CERTIFICATE, "no CA is set up here")
    found = verify_untrusted(chain, book.anchors, role=role, now=now)
    if isinstance(found, Verdict):
        return found
    if not _is_pinned(found, book):
        told = f"no @cert-authority line has the CA that certified {found.name}"
        return _no(Reason.CERTIFICATE, told)
    if any(map(book.is_revoked, found.key_ids)):
        return _no(Reason.REVOKED, "a key of the certificate chain is revoked here")
    return found


def _is_pinned(certified: Certified, book: TrustBook) -> bool:
    """Whether the lines that pin CAs allow this one; without any, every CA of ours."""
    return not book.pins or any(
        pin.key_id in certified.key_ids[1:] and matches(pin.names, certified.name)
        for pin in book.pins
    )


def _certify(peer: Peer, book: TrustBook, now: float) -> Certified | None:
    found = _verified(peer.chain, book, role=peer.role, now=now)
    return found if isinstance(found, Certified) else None


def _narrowing(peer: Peer, book: TrustBook) -> tuple[Terms, ...]:
    # By its name as well: a certified machine that was set up anew has another key.
    return tuple(line.terms for line in book.lines_of(peer.key_id, peer.name))


def _has_authorities(book: TrustBook) -> bool:
    return any(line.cert_authority for line in book.authorized)


def _authority_line(certified: Certified, book: TrustBook) -> AuthorizedKey | None:
    """Return the cert-authority line that a certified master is under."""
    for line in book.authorized:
        if not line.cert_authority or line.key_id not in certified.key_ids[1:]:
            continue
        if matches(line.principals, certified.identity):
            return line
    return None


def _no(reason: Reason, detail: str) -> Verdict:
    return Verdict(Decision.NO, reason, detail)
