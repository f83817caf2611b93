"""The lines of known_workers and known_masters: OpenSSH's known_hosts, with options.

::

    lab-3 ssh-ed25519 AAAA… via=tofu added=20261120 mode=leap proto=1 groups=a,b
    @revoked * ssh-ed25519 AAAA… stolen laptop
    @cert-authority lab ecdsa-sha2-nistp256 AAAA… site CA
    # comment

Two rules make it fail closed.  A line of trust with a word that we do not know
trusts nobody: the word may be a restriction.  A line with an ``@`` that we cannot
read refuses the whole file: it may revoke a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aemesh.errors import BadMessage, quoted
from aemesh.host.trust.trustoptions import (
    TERMS,
    day_untrusted,
    terms_untrusted,
    terms_words,
)
from aemesh.model.key import PublicKey, openssh_key_id_untrusted
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import KnownPeer, Mode, PinnedAuthority, RevokedKey

REVOKED = "@revoked"
OBSERVE = "observe"
CERT_AUTHORITY = "@cert-authority"

# What cannot be seen hides no marker: an editor's byte order mark in front of
# ``@revoked`` would make a name of it, and the key would be trusted again.
_MARKED = re.compile(r"[^!-~]*@")
# What may stand after the key, and how its value must look; of terms, see
# `trustoptions`.
_DAY = re.compile(r"[0-9]{8}", re.ASCII)
_OPTIONS = {
    "via": re.compile(r"[A-Za-z0-9][A-Za-z0-9:@/._-]{0,127}", re.ASCII),
    "added": _DAY,
    "last": _DAY,
    "mode": re.compile("|".join(mode.value for mode in Mode)),
    "proto": re.compile(r"[0-9]{1,4}", re.ASCII),
    OBSERVE: re.compile("yes"),
    **dict.fromkeys(TERMS, re.compile(r"[!-~]*", re.ASCII)),
}
# Somebody wrote the line by hand, with ssh-keyscan's habits.
_VIA_HAND = "hand"
_PROTO = 1
_COMMENT_LENGTH = 200


@dataclass(frozen=True, slots=True)
class VoidLine:
    """A line that trusts nobody, and why; it stays in its file."""

    line: int
    why: str


TrustLine = KnownPeer | RevokedKey | PinnedAuthority


class RefusedLineError(ValueError):
    """A line that makes the whole file unusable."""


def parse_line_untrusted(text: str, line: int) -> TrustLine | VoidLine | None:
    """Return what a line says, None if nothing, or raise `RefusedLineError`."""
    words = text.split()
    if not words or words[0].startswith("#"):
        return None
    if _MARKED.match(words[0]):
        return _marked(words, line)
    try:
        return _known(words, line)
    except BadMessage as error:
        return VoidLine(line, error.what)


def known_line(peer: KnownPeer) -> str:
    """Return the line of a peer; raise `BadMessage` where it would say more than that.

    A line break in a value would be a second line, a blank a second word; ``@`` in
    front would make the name a marker.
    """
    text = " ".join(
        (
            f"{peer.name} {peer.key.openssh}",
            *(f"{name}={value}" for name, value in _story(peer).items() if value),
            *terms_words(peer.terms),
            *([f"{OBSERVE}=yes"] if peer.observe else ()),
        )
    )
    try:
        parsed = parse_line_untrusted(text, peer.line) if text.isprintable() else None
    except RefusedLineError:
        parsed = None
    if parsed != peer:
        msg = f"peer {quoted(peer.name)} cannot stand in a trust file"
        raise BadMessage(msg)
    return text


def changed_line(text: str, changes: dict[str, str]) -> str:
    """Return a line of trust with some options changed or added, the rest as it is."""
    words = text.split()
    kept = [word for word in words[3:] if word.partition("=")[0] not in changes]
    changed = [f"{name}={value}" for name, value in changes.items()]
    return " ".join((*words[:3], *kept, *changed))


def revoked_line(openssh: str, comment: str) -> str:
    """Return the line that revokes a key; of the comment only what fits in a line."""
    shown = " ".join("".join(c if c.isprintable() else " " for c in comment).split())
    return f"{REVOKED} * {openssh} {shown[:_COMMENT_LENGTH]}".rstrip()


def line_name(text: str) -> str | None:
    """Return the name of a line of trust, void or not; None for any other line."""
    words = text.split()
    if not words or words[0].startswith("#") or _MARKED.match(words[0]):
        return None
    return words[0]


def _marked(words: list[str], line: int) -> RevokedKey | PinnedAuthority:
    if words[0] not in (REVOKED, CERT_AUTHORITY):
        msg = f"unknown marker {quoted(words[0])}"
        raise RefusedLineError(msg)
    if len(words) < 4:
        msg = f"expected {words[0]} NAMES KEYTYPE KEY"
        raise RefusedLineError(msg)
    try:
        key_id = openssh_key_id_untrusted(words[2], words[3])
    except BadMessage as error:
        raise RefusedLineError(error.what) from None
    comment = " ".join(words[4:])
    if words[0] == CERT_AUTHORITY:
        return PinnedAuthority(tuple(words[1].split(",")), key_id, comment, line)
    # The pattern does not narrow it: a key that is lost is lost under every name.
    return RevokedKey(key_id, f"{words[2]} {words[3]}", comment, line)


def _known(words: list[str], line: int) -> KnownPeer:
    if len(words) < 3:
        msg = "expected NAME ssh-ed25519 KEY"
        raise BadMessage(msg)
    options = _options(words[3:])
    return KnownPeer(
        name=node_name_untrusted(words[0]),
        key=PublicKey.parse_untrusted(words[1], words[2]),
        via=options.get("via", _VIA_HAND),
        added=options.get("added", ""),
        mode=Mode(options.get("mode", Mode.LEAP.value)),
        line=line,
        last=options.get("last", ""),
        terms=terms_untrusted(options),
        observe=OBSERVE in options,
    )


def _story(peer: KnownPeer) -> dict[str, str]:
    """Return what a line tells of how its key was met."""
    return {
        "via": peer.via,
        "added": peer.added,
        "last": peer.last,
        "mode": peer.mode.value,
        "proto": str(_PROTO),
    }


def _options(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        pattern = _OPTIONS.get(name)
        if pattern is None or not pattern.fullmatch(value):
            msg = f"unknown option {quoted(word)}"
            raise BadMessage(msg)
        if name in found:
            msg = f"option {quoted(name)} stands twice"
            raise BadMessage(msg)
        if pattern is _DAY:
            day_untrusted(value)
        found[name] = value
    return found
