"""The lines of authorized_masters and gss_principals, written by administrators.

::

    users="alice+render",from="192.0.2.0/24" ssh-ed25519 AAAA… alice@desk
    cert-authority,principals="aemesh://lab/master/*" ecdsa-sha2-nistp256 AAAA…
    alice@EXAMPLE.ORG users=alice groups=*

The first two are sshd's (sshd(8), AUTHORIZED_KEYS FILE FORMAT), the third is that of
.k5login with options after it.  As in known_*, what we do not know voids its line,
and a line with an ``@`` in front refuses the file: here it can be no revocation.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aemesh.errors import BadMessage, quoted
from aemesh.host.trust.trustlines import RefusedLineError, VoidLine
from aemesh.host.trust.trustoptions import TERMS, principals_untrusted, terms_untrusted
from aemesh.model.key import openssh_key_id_untrusted
from aemesh.model.trust import AuthorizedKey, Principal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from re import Pattern

_AUTHORITY, _PRINCIPALS = "cert-authority", "principals"
_QUOTED = frozenset({*TERMS, _PRINCIPALS})
# One option: a name, and for some a value in quotes, where \" is a quote.
_OPTION: Pattern[str] = re.compile(
    r'([A-Za-z0-9-]+)(?:="((?:[^"\\]|\\.)*)")?(,|$)', re.DOTALL
)
# What stands before the first blank outside quotes.
_FIRST: Pattern[str] = re.compile(r'(?:[^\s"]|"(?:[^"\\]|\\.)*")+', re.DOTALL)
_PRINCIPAL: Pattern[str] = re.compile(
    r"[A-Za-z0-9_.$/-]{1,128}@[A-Za-z0-9_.-]{1,128}", re.ASCII
)


def parse_authorized_untrusted(text: str, line: int) -> AuthorizedKey | VoidLine | None:
    """Return what a line of authorized_masters says, or None if nothing.

    Raises `RefusedLineError` for a line with an ``@`` in front.
    """
    if _is_silent(text, "authorized_masters"):
        return None
    try:
        return _authorized(text.strip(), line)
    except BadMessage as error:
        return VoidLine(line, error.what)


def parse_principal_untrusted(text: str, line: int) -> Principal | VoidLine | None:
    """Return what a line of gss_principals says, or None if nothing.

    Raises `RefusedLineError` for a line with an ``@`` in front.
    """
    if _is_silent(text, "gss_principals"):
        return None
    try:
        return _principal(text.split(), line)
    except BadMessage as error:
        return VoidLine(line, error.what)


def _is_silent(text: str, file: str) -> bool:
    start = text.strip()[:1]
    if start == "@":
        msg = f"{file} has no lines with a marker; @revoked stands in known_masters"
        raise RefusedLineError(msg)
    return start in {"", "#"}


def _principal(words: list[str], line: int) -> Principal:
    name = words[0]
    if not _PRINCIPAL.fullmatch(name):
        msg = f"{quoted(name)} is no principal: expected USER@REALM"
        raise BadMessage(msg)
    pairs = [(word.partition("=")[0], word.partition("=")[2]) for word in words[1:]]
    return Principal(name, terms_untrusted(_known(pairs, frozenset(TERMS))), line)


def _authorized(text: str, line: int) -> AuthorizedKey:
    options, rest = _split(text)
    algorithm, encoded, comment = [*rest.split(maxsplit=2), "", "", ""][:3]
    key_id = openssh_key_id_untrusted(algorithm, encoded)
    authority = _AUTHORITY in options
    if _PRINCIPALS in options and not authority:
        msg = f"option {_PRINCIPALS} needs {_AUTHORITY} beside it"
        raise BadMessage(msg)
    return AuthorizedKey(
        key_id=key_id,
        openssh=f"{algorithm} {encoded}",
        terms=terms_untrusted(options, separators=",+"),
        cert_authority=authority,
        principals=(
            principals_untrusted(options[_PRINCIPALS]) if _PRINCIPALS in options else ()
        ),
        comment=comment.strip(),
        line=line,
    )


def _split(text: str) -> tuple[dict[str, str], str]:
    """Return the options in front of a key, and the key with what follows it.

    As in sshd a line that begins with a key has no options.
    """
    if _begins_with_key(text):
        return {}, text
    first = _FIRST.match(text)
    if first is None or first.end() == len(text):
        msg = "expected OPTIONS KEYTYPE KEY"
        raise BadMessage(msg)
    return _options(first[0]), text[first.end() :]


def _begins_with_key(text: str) -> bool:
    algorithm, encoded = [*text.split(maxsplit=2), "", ""][:2]
    try:
        openssh_key_id_untrusted(algorithm, encoded)
    except BadMessage:
        return False
    return True


def _options(text: str) -> dict[str, str]:
    pairs = []
    at, comma = 0, ","
    while comma:
        found = _OPTION.match(text, at)
        if found is None:
            msg = f'options {quoted(text)}: expected NAME or NAME="VALUE"'
            raise BadMessage(msg)
        name, value, comma = found[1].lower(), found[2], found[3]
        if (value is None) is (name in _QUOTED):
            msg = f"unknown option {quoted(found[0])}"
            raise BadMessage(msg)
        pairs.append((name, (value or "").replace('\\"', '"')))
        at = found.end()
    return _known(pairs, _QUOTED | {_AUTHORITY})


def _known(pairs: Iterable[tuple[str, str]], names: frozenset[str]) -> dict[str, str]:
    """Return options by name; refuse what is unknown and what stands twice."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in names:
            msg = f"unknown option {quoted(name)}"
            raise BadMessage(msg)
        if name in found:
            msg = f"option {quoted(name)} stands twice"
            raise BadMessage(msg)
        found[name] = value
    return found
