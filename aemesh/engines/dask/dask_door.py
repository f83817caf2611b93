"""Who may no longer be talked to: members that left, by the name in their certificate.

Part of `dask_head.py` and of `dask_node.py`, by way of `dask_tls.py`; imports no Dask.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from typing import Any, Protocol

# Labels that are refused: each departure makes one, so this is a departure a minute
# for six weeks, and some MB. Then the oldest goes: who can make that many members
# leave is a member, and needs no old door.
REFUSED_MEMBERS = 65536
REFUSED_TOLD = 10000  # of 64 characters, that is within a line
COMMON_NAME_LENGTH = 64  # ub-common-name in RFC 5280; an authority cuts there


class Comm(Protocol):
    """A TLS connection of distributed's."""

    @property
    def extra_info(self) -> dict[str, Any]:
        """What is known of the peer, its certificate as `peercert`."""

    def abort(self) -> None:
        """Close it at once."""


class Door:
    """Lets connections in, and closes those of members that are gone.

    The group's authority lives as long as the group, and so does the certificate of
    a member that is gone: it must not open anything here any more.
    """

    def __init__(self) -> None:
        self._refused: dict[str, None] = {}  # in the order in which they came
        # By name: half of a group may leave at once.
        self._comms: dict[str, weakref.WeakSet[Comm]] = defaultdict(weakref.WeakSet)

    def admit(self, comm: Comm) -> None:
        """Keep an eye on a new connection, or abort it."""
        names = common_names(comm)
        if not names or names & self._refused.keys():
            comm.abort()
            return
        for name in names:
            self._comms[name].add(comm)

    def refused(self) -> list[str]:
        """Return who is refused, as many as one line holds; the latest last."""
        return list(self._refused)[-REFUSED_TOLD:]

    def refuse(self, member: str) -> bool:
        """Abort all connections with a member, from now on; False: it is so already."""
        name = member[:COMMON_NAME_LENGTH]
        if name in self._refused:
            return False
        self._refused[name] = None
        if len(self._refused) > REFUSED_MEMBERS:
            del self._refused[next(iter(self._refused))]
        for comm in list(self._comms.pop(name, ())):
            comm.abort()
        return True


def common_names(comm: Comm) -> set[str]:
    """Return the common names in the certificate that the peer showed."""
    subject = (comm.extra_info.get("peercert") or {}).get("subject", ())
    return {text for part in subject for kind, text in part if kind == "commonName"}
