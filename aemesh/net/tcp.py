"""The real network: TCP over IPv4 and IPv6."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket

import trio

from aemesh import limits
from aemesh.errors import SettingsError, UnreachableError, quoted
from aemesh.model.address import Address
from aemesh.net.transport import Connection, Handler
from aemesh.tasks.accepting import accept
from aemesh.tasks.nursery import open_crew

# One documented port, for firewalls; a second node on a machine takes any other.
DEFAULT_PORT = 7472
# For masters that may take over from another one.
KEEPER_PORT = 7473
_BACKLOG = 128


class TcpNetwork:
    """Dials and accepts over the machine's own sockets; takes `prefers` if it may."""

    def __init__(self, prefers: int = DEFAULT_PORT) -> None:
        self._prefers = prefers

    async def dial(self, address: Address) -> Connection:
        """Connect to `address` within `DIAL_AFTER`; raises `UnreachableError`."""
        try:
            with trio.fail_after(limits.DIAL_AFTER):
                stream = await trio.open_tcp_stream(address.host, address.port)
            return await _connection(stream)
        except trio.TooSlowError as exc:
            why = f"no answer in {limits.DIAL_AFTER:g} s"
            msg = f"cannot reach {address}"
            raise UnreachableError(msg, why=why) from exc
        except OSError as exc:
            msg = f"cannot reach {address}"
            raise UnreachableError(msg, why=_why(exc)) from exc

    async def resolve(self, host: str, port: int) -> tuple[Address, ...]:
        """Ask the system where a host is; see `Network.resolve`."""
        try:
            with trio.fail_after(limits.RESOLVE_AFTER):
                found = await trio.socket.getaddrinfo(
                    host, port, type=socket.SOCK_STREAM
                )
        except (trio.TooSlowError, OSError) as exc:
            why = getattr(exc, "strerror", None)
            why = why or f"no answer in {limits.RESOLVE_AFTER:g} s"
            msg = f"cannot find the host {quoted(host)}"
            raise UnreachableError(msg, why=why) from exc
        names = [name for *_, name in found if isinstance(name[0], str)]
        both = dict.fromkeys(_address(name) for name in names)
        return tuple(both)[: limits.ANNOUNCED_ADDRESSES]

    async def serve(
        self,
        handler: Handler,
        *,
        port: int | None,
        hosts: tuple[str, ...] = (),
        task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Accept on `port` until cancelled; see `Network.serve`."""
        prefers = self._prefers if port is not None else 0
        sockets = await _bind(port or 0, hosts, prefers=prefers)
        async with open_crew() as crew:
            for listener in sockets:
                crew.start_soon(_accept, listener, handler)
            task_status.started(sockets[0].getsockname()[1])


def _why(error: OSError) -> str:
    # trio says that all attempts failed; for one address there was one.
    cause = error.__cause__
    if isinstance(cause, ExceptionGroup):
        return "; ".join(_why(e) for e in cause.exceptions if isinstance(e, OSError))
    return os.strerror(error.errno) if error.errno else str(error)


def check_ours(host: str) -> None:
    """Raise `SettingsError` if `host` is no address of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((host, 0))
    except OSError as exc:
        msg = f"cannot listen at {quoted(host)}"
        raise SettingsError(
            msg,
            why=exc.strerror or str(exc),
            hint="name an address of this machine with `--host`; `ip addr` shows them",
        ) from exc


async def _bind(
    port: int, hosts: tuple[str, ...], *, prefers: int
) -> list[trio.socket.SocketType]:
    """Return listening sockets, all on one port; 0 is the preferred one, or any."""
    last: OSError | None = None
    for candidate in (prefers, 0) if port == 0 else (port,):
        try:
            return await _bind_all(candidate, hosts)
        except OSError as exc:
            last = exc
    assert last is not None
    where = f" of {', '.join(hosts)}" if hosts else ""
    msg = f"cannot listen on port {port or prefers}{where}"
    hint = "name a free one with `--port`"
    if isinstance(last, socket.gaierror) or last.errno == errno.EADDRNOTAVAIL:
        hint = "`--host` takes an address of this machine; `ip addr` lists them"
    raise SettingsError(msg, why=last.strerror or str(last), hint=hint) from last


async def _bind_all(port: int, hosts: tuple[str, ...]) -> list[trio.socket.SocketType]:
    # One socket for IPv4 and IPv6 has one port for both; two would get two.
    sockets: list[trio.socket.SocketType] = []
    for host in hosts or ("::" if socket.has_dualstack_ipv6() else "0.0.0.0",):  # noqa: S104
        v6 = ":" in host
        try:
            sock = trio.socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if v6:
                only = 0 if host == "::" else 1
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
            await sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError:
            for each in sockets:
                each.close()
            raise
        port = sock.getsockname()[1]
    return sockets


async def _accept(listener: trio.socket.SocketType, handler: Handler) -> None:
    with listener:
        async with open_crew() as crew:
            while True:
                stream = trio.SocketStream(await accept(listener))
                with contextlib.suppress(OSError):  # it is gone already
                    crew.start_soon(handler, await _connection(stream))


async def _connection(stream: trio.SocketStream) -> Connection:
    """Return the connection of a stream; closes it if the peer is gone already."""
    sock = stream.socket
    try:
        local, remote = _address(sock.getsockname()), _address(sock.getpeername())
        _keep_alive(sock)
    except OSError:
        await trio.aclose_forcefully(stream)
        raise
    return Connection(stream, local, remote)


def _keep_alive(sock: trio.socket.SocketType) -> None:
    """Have a connection end whose other end is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", limits.KEEPALIVE_AFTER),
        ("TCP_KEEPINTVL", limits.KEEPALIVE_EVERY),
        ("TCP_KEEPCNT", limits.KEEPALIVE_TRIES),
    ):
        if (option := getattr(socket, name, None)) is not None:  # else the system's
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _address(name: tuple[str, int] | tuple[str, int, int, int]) -> Address:
    ip = ipaddress.ip_address(name[0].partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return Address(str(ip.ipv4_mapped), name[1])
    if ip.is_link_local and len(name) == 4 and name[3]:
        return Address(f"{ip}%{socket.if_indextoname(name[3])}", name[1])
    return Address(str(ip), name[1])
