"""What a line of trust allows: from where, until when, as whom, in which groups.

The words and their meaning are those of sshd's authorized_keys and patterns
(sshd(8), ssh_config(5)): ``*`` and ``?`` are wildcards, ``!`` in front refuses what
matches, whatever else does.  An empty list allows all; a list of refusals alone
allows nothing, as in OpenSSH.
"""

from __future__ import annotations

import fnmatch
import ipaddress
from typing import TYPE_CHECKING

from aemesh.model.trust import Decision, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aemesh.model.names import GroupName
    from aemesh.model.trust import Terms


def breach(terms: Terms, *, host: str, user: str, now: float) -> Verdict | None:
    """Return the no of the first term that `host`, `user` or `now` breaks, or None.

    `host` is the peer's address without a port, `user` the local user as whom its
    jobs would run, `now` seconds since 1970.
    """
    if terms.expires_at is not None and now >= terms.expires_at:
        return _no(Reason.EXPIRED, "the line of trust has expired")
    if not matches(terms.sources, host, _is_source):
        return _no(Reason.SOURCE, f"the line of trust does not allow {host}")
    if user and not matches(terms.users, user):
        return _no(Reason.USER, f"the line of trust does not allow the user {user}")
    return None


def allow_group(terms: Iterable[Terms], group: GroupName) -> bool:
    """Whether all of the terms allow to serve, or to be held in, this group."""
    return all(matches(each.groups, group) for each in terms)


def matches(
    patterns: tuple[str, ...],
    value: str,
    is_match: Callable[[str, str], bool] = fnmatch.fnmatchcase,
) -> bool:
    """Whether a list of patterns allows `value`.

    `is_match` takes the value and one pattern, without its ``!``.
    """
    if not patterns:
        return True
    if any(p.startswith("!") and is_match(value, p[1:]) for p in patterns):
        return False
    return any(not p.startswith("!") and is_match(value, p) for p in patterns)


def _is_source(host: str, pattern: str) -> bool:
    """Whether an address is in a network, or looks like a pattern of addresses."""
    ip = ipaddress.ip_address(host.partition("%")[0])
    # A socket for both families shows 192.0.2.7 as ::ffff:192.0.2.7: one machine.
    ip = getattr(ip, "ipv4_mapped", None) or ip
    try:
        return ip in ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return fnmatch.fnmatchcase(str(ip), pattern)


def _no(reason: Reason, detail: str) -> Verdict:
    return Verdict(Decision.NO, reason, detail)
