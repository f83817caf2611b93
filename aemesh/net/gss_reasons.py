"""What Kerberos says went wrong, in our words: two tables, one for each side.

MIT's library tells a routine error (the major code, RFC 2744) and mostly also a code
of its own (the minor one), which is the better of the two.  What stands in neither
table is told in the library's own sentence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aemesh.errors import AemeshError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Told(NamedTuple):
    """What an error of the library is called here."""

    kind: type[AemeshError]
    why: str
    hint: str | None = None


# Major codes: the routine error, bits 16 to 23.
BAD_BINDINGS = 4
NO_CREDENTIALS = 7
DEFECTIVE_TOKEN = 9
EXPIRED_CREDENTIALS = 11

# Minor codes, as in <krb5/krb5.h>.
SERVICE_UNKNOWN = -1765328377
BAD_INTEGRITY = -1765328353
TICKET_EXPIRED = -1765328352
TICKET_NOT_YET_VALID = -1765328351
REPLAY = -1765328350
NOT_FOR_US = -1765328349
SKEW = -1765328347
MODIFIED = -1765328343
WRONG_KEY_VERSION = -1765328340
NO_KEY = -1765328339
WRONG_PRINCIPAL = -1765328240
REALM_UNKNOWN = -1765328230
KDC_UNREACHABLE = -1765328228
MUTUAL_FAILED = -1765328226
NO_CACHE_FILE = -1765328189
KEY_VERSION_UNKNOWN = -1765328154

_KINIT = "run `kinit`"
_CLOCKS = "set both clocks, as NTP does"
_KEYTAB = "make its keytab with `kadmin ktadd`, and name it with --keytab FILE"
_NEW_KEYTAB = "make the keytab anew with `kadmin ktadd`"
_KRB5_CONF = "look at the KDCs in /etc/krb5.conf"

_NO_TICKET = Told(RefusedError, "we have no Kerberos ticket", _KINIT)
_EXPIRED = Told(RefusedError, "our Kerberos ticket has expired", _KINIT)
_OTHER_SERVICE = Told(RefusedError, "its ticket is for another service")
_OTHER_KEY = Told(RefusedError, "our keytab has another key than the KDC", _NEW_KEYTAB)

# On the side that has the ticket.
INITIATOR: Mapping[int, Told] = {
    NO_CREDENTIALS: _NO_TICKET,
    NO_CACHE_FILE: _NO_TICKET,
    EXPIRED_CREDENTIALS: _EXPIRED,
    TICKET_EXPIRED: _EXPIRED,
    TICKET_NOT_YET_VALID: Told(
        RefusedError, "our ticket is not valid yet: a clock is wrong", _CLOCKS
    ),
    SKEW: Told(RefusedError, "our clock and the KDC's differ too much", _CLOCKS),
    SERVICE_UNKNOWN: Told(
        RefusedError,
        "the KDC does not know this service",
        "make it with `kadmin addprinc -randkey`, or look at the worker's --name",
    ),
    DEFECTIVE_TOKEN: Told(RefusedError, "the worker sent no Kerberos token"),
    MUTUAL_FAILED: Told(RefusedError, "the worker did not prove itself"),
    REALM_UNKNOWN: Told(UnreachableError, "no KDC of the realm is known", _KRB5_CONF),
    KDC_UNREACHABLE: Told(UnreachableError, "no KDC of the realm answers", _KRB5_CONF),
}

# On the side that has the keytab.
ACCEPTOR: Mapping[int, Told] = {
    NO_CREDENTIALS: Told(RefusedError, "our keytab has no key of this name", _KEYTAB),
    DEFECTIVE_TOKEN: Told(RefusedError, "it sent no Kerberos token"),
    BAD_BINDINGS: Told(
        RefusedError, "its token is bound to another connection than this one"
    ),
    REPLAY: Told(RefusedError, "its token was used before"),
    NOT_FOR_US: _OTHER_SERVICE,
    WRONG_PRINCIPAL: _OTHER_SERVICE,
    BAD_INTEGRITY: _OTHER_KEY,
    MODIFIED: _OTHER_KEY,
    WRONG_KEY_VERSION: _OTHER_KEY,
    NO_KEY: _OTHER_KEY,
    KEY_VERSION_UNKNOWN: _OTHER_KEY,
    TICKET_EXPIRED: Told(RefusedError, "its ticket has expired"),
    TICKET_NOT_YET_VALID: Told(
        RefusedError, "its ticket is not valid yet: a clock is wrong", _CLOCKS
    ),
    SKEW: Told(RefusedError, "its clock and ours differ too much", _CLOCKS),
}


def told(table: Mapping[int, Told], major: int, minor: int) -> Told | None:
    """Return what a side says of an error, by its minor code if that is known.

    Both codes are as in C: unsigned, of 32 bits.
    """
    signed = minor - 2**32 if minor >= 2**31 else minor
    return table.get(signed) or table.get(major >> 16 & 0xFF)
