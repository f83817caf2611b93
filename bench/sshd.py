"""sshd on hosts of the lab, for peers that start their workers over ssh."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from aemesh.testing.lab import Host
from bench.watched import open_watched

PORT = 2222  # above 1024: it runs as the host's user, who is the only one to log in
SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin")


@asynccontextmanager
async def open_sshd(head: Host, hosts: Sequence[Host]) -> AsyncIterator[None]:
    """Let the head's user log in at these hosts without being asked for anything."""
    assert SSHD is not None, "install openssh-server"
    key = await _new_key(head, head.home / ".ssh/id_ed25519")
    (head.home / ".ssh/config").write_text(_config(hosts))
    async with AsyncExitStack() as stack:
        for host in hosts:
            conf = await _prepare(host, key)
            argv = (SSHD, "-D", "-e", "-f", str(conf))
            sshd = await stack.enter_async_context(open_watched(host, argv))
            await sshd.wait_line("Server listening")
        for host in hosts:  # all of the first time is done
            await head.run(["ssh", host.name, "true"])
        yield


def _config(hosts: Sequence[Host]) -> str:
    lines = [
        *("Port 2222", "StrictHostKeyChecking no", "UserKnownHostsFile /dev/null"),
        *("LogLevel ERROR", "BatchMode yes"),
    ]
    for host in hosts:
        lines += [f"Host {host.name} {host.ipv4}", f"User {host.user}"]
    return "\n".join(lines) + "\n"


async def _prepare(host: Host, key: str) -> Path:
    folder = host.home / ".ssh"
    await _new_key(host, folder / "host_key")
    authorized = folder / "authorized_keys"
    authorized.write_text(key)
    own = host.environment()
    (folder / "environment").write_text(
        "".join(f"{name}={own[name]}\n" for name in ("PATH", "PYTHONPATH"))
    )
    conf = folder / "sshd_config"
    lines = (
        f"Port {PORT}",
        f"ListenAddress {host.ipv4}",
        f"HostKey {folder / 'host_key'}",
        f"AuthorizedKeysFile {authorized}",
        f"PidFile {folder / 'sshd.pid'}",
        "UsePAM no",
        "StrictModes no",
        "PermitUserEnvironment yes",
        "MaxStartups 100",
        "UseDNS no",
        "Subsystem sftp internal-sftp",
    )
    conf.write_text("\n".join(lines) + "\n")
    return conf


async def _new_key(host: Host, place: Path) -> str:
    await host.run(["mkdir", "-p", "-m", "700", str(place.parent)])
    words = ("-q", "-t", "ed25519", "-N", "", "-f", str(place))
    if not await trio.Path(place).exists():
        await host.run(["ssh-keygen", *words])
    public = place.with_name(f"{place.name}.pub")
    return await trio.Path(public).read_text()
