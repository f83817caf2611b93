"""The options of a line of trust: groups, sources, users, and when it ends.

known_* lines, authorized_masters and gss_principals write the same four in three
ways; what a value may be is said here, once.  A value that cannot be read voids its
line, for it may be a restriction: every function here raises `BadMessage` then.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
import time
from typing import TYPE_CHECKING

from aemesh.errors import BadMessage, quoted
from aemesh.model.trust import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

GROUPS, SOURCES, EXPIRY, USERS = "groups", "from", "expiry-time", "users"
TERMS = (GROUPS, SOURCES, EXPIRY, USERS)

# Names with the wildcards of ssh_config(5); "$" ends the names of some machines' users.
_NAME_PATTERN = re.compile(r"!?[A-Za-z0-9_.@$*?-]{1,64}", re.ASCII)
_PRINCIPAL_PATTERN = re.compile(r"!?[A-Za-z0-9_.:/@$%*?~+-]{1,255}", re.ASCII)
# Lower case, as addresses are written canonically: another case matches nothing.
_ADDRESS_PATTERN = re.compile(r"[0-9a-f.:*?]*[*?][0-9a-f.:*?]*", re.ASCII)
_DATE = re.compile(r"[0-9]{8}", re.ASCII)
_TIME = re.compile(
    r"(?P<date>[0-9]{8})(?:(?P<minute>[0-9]{4})(?P<second>[0-9]{2})?)?(?P<utc>Z?)",
    re.ASCII,
)


def terms_untrusted(options: Mapping[str, str], *, separators: str = ",") -> Terms:
    """Return the terms among `options`; others are left to the caller.

    `separators` are the characters that part the items of a list.
    """

    def items(name: str, check: Callable[[str], str]) -> tuple[str, ...]:
        if name not in options:
            return ()
        return _items(name, options[name], separators, check)

    return Terms(
        groups=items(GROUPS, _name_pattern),
        sources=items(SOURCES, _source),
        users=items(USERS, _name_pattern),
        expires_at=(expiry_untrusted(options[EXPIRY]) if EXPIRY in options else None),
    )


def principals_untrusted(text: str) -> tuple[str, ...]:
    """Return the patterns of certified identities in a list with commas."""
    return _items("principals", text, ",", _principal_pattern)


def expiry_untrusted(text: str) -> float:
    """Return the end written ``YYYYMMDD[HHMM[SS]][Z]``, in seconds since 1970.

    As in sshd(8) it is local time unless a Z is at its end, and a day alone is its
    first moment.
    """
    found = _TIME.fullmatch(text)
    seconds = _seconds(found) if found else None
    if seconds is None:
        msg = f"{quoted(text)} is no time: expected YYYYMMDD[HHMM[SS]][Z]"
        raise BadMessage(msg)
    return seconds


def day_untrusted(text: str) -> str:
    """Return a day ``YYYYMMDD`` that is in the calendar."""
    if not _DATE.fullmatch(text) or _moment(f"{text}000000") is None:
        msg = f"{quoted(text)} is no day: expected YYYYMMDD"
        raise BadMessage(msg)
    return text


def terms_words(terms: Terms) -> list[str]:
    """Return terms as the words of a line, in the order of `TERMS`."""
    values = {
        GROUPS: ",".join(terms.groups),
        SOURCES: ",".join(terms.sources),
        EXPIRY: "" if terms.expires_at is None else _written(terms.expires_at),
        USERS: ",".join(terms.users),
    }
    return [f"{name}={value}" for name, value in values.items() if value]


def _items(
    name: str, text: str, separators: str, check: Callable[[str], str]
) -> tuple[str, ...]:
    parts = re.split(f"[{re.escape(separators)}]", text)
    if not all(parts):
        msg = f"option {name}={quoted(text)} has an empty item"
        raise BadMessage(msg)
    return tuple(map(check, parts))


def _name_pattern(text: str) -> str:
    return _pattern(text, _NAME_PATTERN)


def _principal_pattern(text: str) -> str:
    return _pattern(text, _PRINCIPAL_PATTERN)


def _pattern(text: str, allowed: re.Pattern[str]) -> str:
    if not allowed.fullmatch(text):
        msg = f"{quoted(text)} is no pattern of names"
        raise BadMessage(msg)
    return text


def _source(text: str) -> str:
    """Return a network, an address or a pattern of addresses, with or without ``!``."""
    plain = text.removeprefix("!")
    if _ADDRESS_PATTERN.fullmatch(plain):
        return text
    try:
        # Strict, as sshd is: 192.0.2.7/24 may mean one machine or 256.
        ipaddress.ip_network(plain)
        is_network = plain.isascii() and "%" not in plain
    except ValueError:
        is_network = False
    if not is_network:
        msg = f"{quoted(text)} is no network: expected 192.0.2.0/24 or 192.0.2.*"
        raise BadMessage(msg)
    return text


def _seconds(found: re.Match[str]) -> float | None:
    """Return the moment in seconds since 1970; None if there is no such moment."""
    clock = (found["minute"] or "0000") + (found["second"] or "00")
    moment = _moment(found["date"] + clock)
    if moment is None:
        return None
    if found["utc"]:
        return moment.timestamp()
    try:
        # -1: whether it is summer time there is the machine's to know.
        return time.mktime((*moment.timetuple()[:8], -1))
    except OverflowError:
        return None


def _moment(digits: str) -> dt.datetime | None:
    try:
        return dt.datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=dt.UTC)
    except ValueError:
        return None


def _written(at: float) -> str:
    try:
        moment = dt.datetime.fromtimestamp(at, dt.UTC)
    except (ValueError, OverflowError, OSError):
        msg = f"{at} is no time that a line can have"
        raise BadMessage(msg) from None
    # "%Y" has no zeros in front: the year 27 would be read as 2712.
    return f"{moment.year:04d}{moment:%m%d%H%M%SZ}"
