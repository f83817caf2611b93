"""Whom a script of Dask's talks to: its group, by TLS 1.3, and nobody who has left it.

Part of `dask_head.py` and of `dask_node.py`. Importing it puts a door into distributed,
which each connection has to pass, in and out.
"""
# distributed is asyncio's, and untyped.
# mypy: disable-error-code="no-untyped-call, mutable-override"

from __future__ import annotations

import os
import ssl
import weakref

from distributed import Security
from distributed.comm.registry import backends
from distributed.comm.tcp import TLS, TLSBackend, TLSConnector, TLSListener

# Labels that are refused: each departure makes one, so this is a departure a minute
# for six weeks, and some MB. Then the oldest goes: who can make that many members
# leave is a member, and needs no old door.
REFUSED_MEMBERS = 65536
REFUSED_TOLD = 10000  # of 64 characters, that is within a line
COMMON_NAME_LENGTH = 64  # ub-common-name in RFC 5280; an authority cuts there


class Door:
    """Who may no longer be talked to: members, by the common name in certificates.

    The group's authority lives as long as the group, and so does the certificate of
    a member that is gone: it must not open anything here any more.
    """

    def __init__(self) -> None:
        self._refused: dict[str, None] = {}  # in the order in which they came
        self._comms: weakref.WeakSet[TLS] = weakref.WeakSet()

    def admit(self, comm: TLS) -> None:
        """Keep an eye on a new connection, or abort it."""
        names = common_names(comm)
        if not names or names & self._refused.keys():
            comm.abort()
        else:
            self._comms.add(comm)

    def refused(self) -> list[str]:
        """Return who is refused, as many as one line holds; the latest last."""
        return list(self._refused)[-REFUSED_TOLD:]

    def refuse(self, member: str) -> None:
        """Abort all connections with a member, from now on."""
        self._refused[member[:COMMON_NAME_LENGTH]] = None
        if len(self._refused) > REFUSED_MEMBERS:
            del self._refused[next(iter(self._refused))]
        for comm in list(self._comms):
            if common_names(comm) & self._refused.keys():
                comm.abort()


DOOR = Door()


def common_names(comm: TLS) -> set[str]:
    """Return the common names in the certificate that the peer showed."""
    subject = (comm.extra_info.get("peercert") or {}).get("subject", ())
    return {text for part in subject for kind, text in part if kind == "commonName"}


class GuardedTls(TLS):
    """A TLS connection, in or out, that has to pass the door.

    distributed makes one as soon as TLS has shaken hands, before it reads a message;
    on one that was aborted meanwhile its first read or write fails.
    """

    def _read_extra(self) -> None:
        super()._read_extra()
        DOOR.admit(self)


class GuardedListener(TLSListener):
    """A listener whose connections have to pass the door."""

    comm_class = GuardedTls


class GuardedConnector(TLSConnector):
    """A connector whose connections have to pass the door."""

    comm_class = GuardedTls


class GuardedBackend(TLSBackend):
    """What distributed uses for `tls://`."""

    _connector_class = GuardedConnector
    _listener_class = GuardedListener


backends["tls"] = GuardedBackend()


def security_from(tls: dict[str, str]) -> Security:
    """Return TLS 1.3 with the group's own authority for every role.

    Paths are made absolute: a task may change the directory and then open a client.
    """
    ca, cert, key = (os.path.abspath(tls[name]) for name in ("ca", "cert", "key"))
    roles = ("scheduler", "worker", "client")
    return Security(
        require_encryption=True,
        tls_min_version=ssl.TLSVersion.TLSv1_3,
        tls_ca_file=ca,
        **{f"tls_{role}_cert": cert for role in roles},
        **{f"tls_{role}_key": key for role in roles},
    )
