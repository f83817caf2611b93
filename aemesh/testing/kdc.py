"""A Kerberos site in a folder: MIT's own KDC, with realms, principals and keytabs.

    async with open_kdc(folder) as kdc:
        await kdc.add_user("alice", "secret")
        keytab = await kdc.make_keytab("office.keytab", "aemesh/office-1")
        cache = await kdc.kinit("alice", "secret")

Programs find it by ``kdc.environment()``.  With a host of the lab the KDC runs there,
and whoever reaches the host reaches it; its files are made from here.
"""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from aemesh.testing.lab import wait_for
from aemesh.testing.lab_errors import LabError
from aemesh.testing.lab_link import end_process
from aemesh.testing.lab_needs import program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from aemesh.testing.lab_host import Host

REALM = "EXAMPLE.ORG"
# Another site, whose users ours knows: its KDC hands them tickets for our realm.
OTHER_REALM = "OTHER.EXAMPLE"

# It is up in 0.1 s; a busy machine takes its time.
UP_WITHIN = 30.0
READY = "commencing operation"
_PROGRAMS = ("kadmin.local", "kdb5_util", "kinit", "krb5kdc")
_PORT = 88

_CLIENTS = """\
[libdefaults]
  default_realm = {realm}
  dns_canonicalize_hostname = false
  dns_lookup_kdc = false
  dns_lookup_realm = false
  rdns = false
[realms]
{realms}
[capaths]
  {other} = {{
    {realm} = .
  }}
"""
_CLIENTS_REALM = """\
  {realm} = {{
    kdc = {address}:{port}
  }}
"""
_SERVER = """\
[kdcdefaults]
  kdc_listen = {address}:{port}
  kdc_tcp_listen = {address}:{port}
[realms]
{realms}
[logging]
  kdc = FILE:{folder}/kdc.log
"""
_SERVER_REALM = """\
  {realm} = {{
    database_name = {folder}/{realm}.principals
    key_stash_file = {folder}/{realm}.stash
    acl_file = {folder}/acl
    supported_enctypes = aes256-cts:normal
  }}
"""


def missing() -> str:
    """Return why no KDC can be run on this machine; empty if one can."""
    try:
        for name in _PROGRAMS:
            program(name)
    except LabError as exc:
        return f"{exc}; {exc.hint}"
    return ""


@dataclass(frozen=True, slots=True)
class Kdc:
    """A running KDC, as its administrator and its users see it.

    Principals without a realm are of REALM.
    """

    folder: Path
    address: str
    port: int

    @property
    def config(self) -> Path:
        """The krb5.conf of who uses this KDC."""
        return self.folder / "krb5.conf"

    def environment(self) -> dict[str, str]:
        """Return what makes a program use this KDC."""
        return {"KRB5_CONFIG": str(self.config)}

    def settle(self, host: Host) -> dict[str, str]:
        """Let a host of the lab use this KDC; return its programs' environment."""
        there = host.folder / "krb5.conf"
        there.write_text(self.config.read_text())
        return {"KRB5_CONFIG": str(there)}

    async def add_user(self, principal: str, password: str) -> None:
        """Make a principal that proves itself by a password."""
        await self._administer(principal, "addprinc", "-pw", password, principal)

    async def make_keytab(self, name: str, *services: str) -> Path:
        """Make principals with random keys, and a file that has these."""
        file = self.folder / name
        for one in services:
            await self._administer(one, "addprinc", "-randkey", one)
            await self._administer(one, "ktadd", "-k", str(file), one)
        return file

    async def renew_key(self, principal: str) -> None:
        """Give a principal another random key; keytabs that were made are stale."""
        await self._administer(principal, "cpw", "-randkey", principal)

    async def kinit(self, principal: str, password: str, *options: str) -> Path:
        """Log a user in; return the credential cache, one for each principal."""
        file = self.folder / f"{principal.replace('/', '-')}.cache"
        argv = [program("kinit"), "-c", str(file), *options, principal]
        await _run(argv, self.environment(), stdin=password)
        return file

    async def _administer(self, principal: str, *command: str) -> None:
        realm = principal.rpartition("@")[2] if "@" in principal else REALM
        argv = [program("kadmin.local"), "-r", realm, *command]
        await _run(argv, _server_environment(self))


def shift_clock(cache: Path, seconds: int) -> Path:
    """Return a copy of a credential cache whose user's clock is wrong by `seconds`.

    The header of the file has the difference to the KDC's clock, which the library
    adds to its own (kdc_timesync of krb5.conf).
    """
    # u16 version 0504 | u16 length 12 | u16 tag 1 | u16 length 8 | i32 s | i32 µs
    data = bytearray(cache.read_bytes())
    if data[:8] != bytes.fromhex("0504000c00010008"):
        what = f"{cache} is no credential cache with a clock"
        raise LabError(what, why=f"it starts with {data[:8].hex()}")
    data[8:12] = seconds.to_bytes(4, "big", signed=True)
    shifted = cache.with_suffix(f".{seconds}")
    shifted.touch(mode=0o600)
    shifted.write_bytes(data)
    return shifted


@asynccontextmanager
async def open_kdc(folder: Path, *, host: Host | None = None) -> AsyncIterator[Kdc]:
    """Run a KDC as long as the block lasts: on loopback, or on a host of the lab.

    It serves REALM, and OTHER_REALM whose users may come to REALM.
    """
    address = "127.0.0.1" if host is None else str(host.ipv4)
    kdc = Kdc(folder, address, _free_port() if host is None else _PORT)
    _write_settings(kdc)
    for realm in (REALM, OTHER_REALM):
        argv = [program("kdb5_util"), "-r", realm, "create", "-s", "-P", "of a test"]
        await _run(argv, _server_environment(kdc))
    crossing = f"krbtgt/{REALM}@{OTHER_REALM}"
    for realm in (REALM, OTHER_REALM):
        argv = [
            program("kadmin.local"),
            "-r",
            realm,
            "addprinc",
            "-pw",
            "both",
            crossing,
        ]
        await _run(argv, _server_environment(kdc))
    process = await _start(kdc, host)
    try:
        await wait_for(
            lambda: _is_ready(kdc, process),
            within=UP_WITHIN,
            what=f"a KDC at {kdc.address} port {kdc.port}",
        )
        yield kdc
    finally:
        await end_process(process)


def _write_settings(kdc: Kdc) -> None:
    realms = (REALM, OTHER_REALM)
    values: dict[str, object] = {
        "address": kdc.address,
        "port": kdc.port,
        "folder": kdc.folder,
    }
    theirs = "".join(_CLIENTS_REALM.format(realm=one, **values) for one in realms)
    ours = "".join(_SERVER_REALM.format(realm=one, **values) for one in realms)
    kdc.config.write_text(
        _CLIENTS.format(realm=REALM, other=OTHER_REALM, realms=theirs)
    )
    (kdc.folder / "kdc.conf").write_text(_SERVER.format(realms=ours, **values))


async def _start(kdc: Kdc, host: Host | None) -> trio.Process:
    argv = [program("krb5kdc"), "-n", "-r", REALM, "-r", OTHER_REALM]
    environment = _server_environment(kdc)
    if host is not None:
        return await host.start(argv, root=True, env=environment)
    return await trio.lowlevel.open_process(
        argv,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _is_ready(kdc: Kdc, process: trio.Process) -> bool:
    log = kdc.folder / "kdc.log"
    said = log.read_text(errors="replace") if log.exists() else ""
    if process.returncode is not None:
        what = f"the KDC at {kdc.address} port {kdc.port} did not come up"
        raise LabError(what, why=said)
    return READY in said


def _server_environment(kdc: Kdc) -> dict[str, str]:
    return {**kdc.environment(), "KRB5_KDC_PROFILE": str(kdc.folder / "kdc.conf")}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _run(
    argv: Sequence[str], environment: Mapping[str, str], *, stdin: str = ""
) -> None:
    done = await trio.run_process(
        argv,
        env={**os.environ, **environment},
        stdin=stdin.encode(),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if done.returncode != 0:
        what = f"{argv[0]} ended with {done.returncode}"
        raise LabError(what, why=(done.stdout + done.stderr).decode(errors="replace"))
