"""From the start of a worker to its Dask workers registered: ours, and Dask's own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from aemesh.master.authority import GroupAuthority
from aemesh.model.names import GroupName
from aemesh.testing.lab import Host
from bench.watched import Watched, open_watched

GROUP = "bench"
_REGISTER = r"Register worker addr"


@dataclass(frozen=True, slots=True)
class Joined:
    """Seconds from the start to the first process, and to all of them, registered."""

    first: float
    all: float


# --- ours ---------------------------------------------------------------------


@asynccontextmanager
async def open_master(host: Host) -> AsyncIterator[Watched]:
    """Run a master that trusts whoever comes, until the block ends."""
    argv = (*host.aemesh, "master", "--group", GROUP, "--accept-new", "--verbose")
    async with open_watched(host, argv) as master:
        await master.wait_line(rf"group {GROUP} is ready")
        yield master


async def join_ours(master: Watched, host: Host, *, cores: int) -> Joined:
    """Start one worker of ours, wait until it serves, and let it leave again."""
    return (await join_many(master, [host], cores=cores))[0]


async def join_many(master: Watched, hosts: list[Host], *, cores: int) -> list[Joined]:
    """Start workers at once; return how long each took."""
    seen = len(master.lines)
    async with AsyncExitStack() as stack:
        started_at = time.monotonic()
        for host in hosts:
            argv = (
                *host.aemesh,
                "worker",
                "--accept-first-master",
                "--cores",
                f"{cores}",
            )
            await stack.enter_async_context(open_watched(host, argv))
        del master.lines[:seen]
        joined = []
        for host in hosts:
            first = await master.wait_line(rf'registered "{host.name}\.')
            last = await master.wait_line(rf"{host.name} serves {GROUP}")
            joined.append(Joined(first - started_at, last - started_at))
    for host in hosts:
        await master.wait_line(rf"{host.name} (left {GROUP}|is lost)")
    await trio.sleep(0.3)  # its processes have all gone; the switch forgets nothing
    return joined


def forget(host: Host, master: Host) -> None:
    """Let a host start as if for the first time, also in the master's eyes."""
    _remove(host.home / ".local/state/aemesh/worker")
    known = master.home / ".local/state/aemesh/master/known_workers"
    if known.exists():
        lines = known.read_text().splitlines(keepends=True)
        known.write_text("".join(line for line in lines if host.name not in line))


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            _remove(path)
        folder.rmdir()
    else:
        folder.unlink(missing_ok=True)


# --- Dask's own ---------------------------------------------------------------


class DaskTls:
    """One authority for the scheduler and the workers of Dask's own."""

    def __init__(self) -> None:
        self._authority = GroupAuthority(GroupName(GROUP), now=time.time())

    def words(self, host: Host) -> list[str]:
        """Write certificates for a host; return the words that name them."""
        key, certificate = self._authority.issue(name=host.name)
        return _put_tls(host, self._authority.certificate_pem, key, certificate)


def _put_tls(host: Host, authority: str, key: bytes, certificate: str) -> list[str]:
    files = {"ca": authority.encode(), "cert": certificate.encode(), "key": key}
    words = []
    for name, data in files.items():
        path = host.home / f"bench-{name}.pem"
        path.write_bytes(data)
        path.chmod(0o644)
        words += [f"--tls-{'ca-file' if name == 'ca' else name}", str(path)]
    return words


@asynccontextmanager
async def open_scheduler(host: Host, tls: DaskTls) -> AsyncIterator[Watched]:
    """Run ``dask scheduler`` with TLS until the block ends."""
    argv = (
        *(host.python, "-m", "dask", "scheduler", "--protocol", "tls"),
        *("--host", host.ipv4, "--port", "8786", "--no-dashboard", *tls.words(host)),
    )
    async with open_watched(host, argv) as scheduler:
        await scheduler.wait_line(r"Scheduler at:.*tls://")
        yield scheduler


async def join_dask(  # noqa: PLR0913 - the command has as many words
    scheduler: Watched,
    host: Host,
    tls: DaskTls,
    *,
    address: str,
    words: list[str],
    processes: int,
) -> Joined:
    """Start ``dask worker ADDRESS`` as a person would, wait, and stop it again."""
    argv = (
        *(host.python, "-m", "dask", "worker", address, "--no-dashboard"),
        *(*tls.words(host), *words),
    )
    del scheduler.lines[:]
    async with open_watched(host, argv) as worker:
        first = await scheduler.wait_line(_REGISTER)
        last = await scheduler.wait_line(_REGISTER, times=processes)
        joined = Joined(first - worker.started_at, last - worker.started_at)
    await scheduler.wait_line(r"Remove worker addr", times=processes)
    await trio.sleep(0.3)
    return joined


async def join_dask_many(
    scheduler: Watched, hosts: list[Host], tls: DaskTls, *, address: str
) -> float:
    """Start ``dask worker`` on hosts at once; return when all are in."""
    del scheduler.lines[:]
    async with AsyncExitStack() as stack:
        started_at = time.monotonic()
        for host in hosts:
            argv = (
                *(host.python, "-m", "dask", "worker", address, "--no-dashboard"),
                *(*tls.words(host), "--nworkers", "1", "--nthreads", "1"),
            )
            await stack.enter_async_context(open_watched(host, argv))
        took = await scheduler.wait_line(_REGISTER, times=len(hosts)) - started_at
    await scheduler.wait_line(r"Remove worker addr", times=len(hosts))
    await trio.sleep(0.3)
    return took


async def form_group(head: Host, hosts: list[Host]) -> float:
    """Start a master where workers wait; return when all of them serve."""
    async with AsyncExitStack() as stack:
        for host in hosts:
            argv = (*host.aemesh, "worker", "--accept-first-master", "--cores", "1")
            agent = await stack.enter_async_context(open_watched(host, argv))
            await agent.wait_line("offers")
        await trio.sleep(1.0 + 0.6 * len(hosts))  # their spares are warm
        argv = (*head.aemesh, "master", "--group", GROUP, "--accept-new")
        async with open_watched(head, argv) as master:
            last = await master.wait_line(f"serves {GROUP}", times=len(hosts))
    return last - master.started_at
