"""Whom a script of Dask's talks to: its group, by TLS 1.3, and nobody who has left it.

Part of `dask_head.py` and of `dask_node.py`. Importing it puts a door into distributed,
which each connection has to pass, in and out.
"""
# distributed is asyncio's, and untyped.
# mypy: disable-error-code="no-untyped-call, mutable-override"

from __future__ import annotations

import os
import ssl

from dask_door import Door
from distributed import Security
from distributed.comm.registry import backends
from distributed.comm.tcp import TLS, TLSBackend, TLSConnector, TLSListener

DOOR = Door()


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
