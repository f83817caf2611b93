"""The engines, on real processes of this machine; Dask's own promises beside them."""
# What psutil, which is untyped, and Dask hand back is anything.
# mypy: disable-error-code="import-untyped"

from __future__ import annotations

import itertools
import signal
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import trio

from aemesh.engines import command, dask
from aemesh.errors import EngineError
from aemesh.model.names import NodeName
from aemesh.plugin import Showing
from aemesh.testing.checks import (
    UP_AFTER,
    add_both,
    check_engine,
    two_members,
)
from aemesh.testing.local_group import LocalGroup, LocalMember, open_local_group

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aemesh.host.localjob import LocalJob
    from aemesh.model.job import JobSpec

pytest.importorskip("distributed")

# Seconds are plenty; on a busy machine all takes longer.
SOON = 10.0


async def test_the_command_engine_does_what_engines_must(tmp_path: Path) -> None:
    """Shows: E1."""
    await check_engine(command.ENGINE, tmp_path)


async def test_the_dask_engine_does_what_engines_must(tmp_path: Path) -> None:
    """Shows: E1."""
    await check_engine(dask.ENGINE, tmp_path)


# Deaths


async def test_the_death_of_a_node_is_told(tmp_path: Path) -> None:
    async with open_local_group(tmp_path) as group, dask.ENGINE.open(group) as running:
        member, _ = two_members(group)
        await running.add(member)

        kill(member.jobs[0])

        with trio.fail_after(SOON):
            assert "it ended with 137" in await group.wait_broken(member)


async def test_a_node_that_does_not_come_up_is_an_engine_error(tmp_path: Path) -> None:
    async with open_local_group(tmp_path) as group, dask.ENGINE.open(group) as running:
        member = DoomedMember(group, NodeName("office-0"))
        with pytest.raises(EngineError, match="Dask on office-0"):
            await running.add(member)

        await running.lost(member)
        await running.add(two_members(group)[0])


async def test_the_death_of_the_scheduler_leaves_the_block(tmp_path: Path) -> None:
    async with open_local_group(tmp_path) as group:

        async def serve() -> None:
            async with dask.ENGINE.open(group) as running:
                await running.add(two_members(group)[0])
                kill(group.heads[0])
                with trio.fail_after(SOON):
                    await trio.sleep_forever()

        with pytest.raises(EngineError, match="scheduler died: it ended with 137"):
            await serve()
        assert group.jobs.jobs == ()


async def test_the_death_of_the_scheduler_in_a_retirement_is_one_error(
    tmp_path: Path,
) -> None:
    async with open_local_group(tmp_path) as group:
        member, _ = two_members(group)

        async def serve() -> None:
            async with dask.ENGINE.open(group) as running:
                await running.add(member)
                kill(group.heads[0])
                with trio.fail_after(SOON):
                    await running.retire(member, by_after=SOON)

        with pytest.raises(EngineError, match="scheduler"):
            await serve()
        assert group.jobs.jobs == ()


async def test_a_scheduler_that_cannot_listen_tells_why(tmp_path: Path) -> None:
    async with open_local_group(tmp_path) as group:
        group.address = "203.0.113.1"  # nobody's, for documentation (RFC 5737)

        with pytest.raises(EngineError, match="assign requested address"):
            async with dask.ENGINE.open(group):
                pass

        assert group.jobs.jobs == ()


class DoomedMember(LocalMember):
    """A member whose jobs are killed before they can do anything."""

    async def start(self, spec: JobSpec) -> LocalJob:
        job = await super().start(spec)
        kill(job)
        return job


def kill(job: LocalJob) -> None:
    psutil.Process(job.pid).send_signal(signal.SIGKILL)


# Spares


async def test_warm_spares_become_the_head_and_the_node(tmp_path: Path) -> None:
    async with open_local_group(tmp_path) as group:
        for spec in (dask.ENGINE.spare_head(), dask.ENGINE.spare_node()):
            assert spec is not None
            await group.jobs.start_spare(spec)
        spares = group.jobs.spares

        async with dask.ENGINE.open(group) as running:
            member, _ = two_members(group)
            await running.add(member)

            assert (group.heads[0], member.jobs[0]) == spares


# The dashboard


async def test_the_dashboard_is_seen_though_nothing_listens_for_it(
    tmp_path: Path,
) -> None:
    """Shows: E2."""
    pytest.importorskip("bokeh")
    async with open_local_group(tmp_path) as group, dask.ENGINE.open(group) as running:
        before = listeners(group.heads[0].pid)
        assert isinstance(running, Showing)
        said = await seen(running, "/status")
        # What changes something, or leads elsewhere, is not there.
        others = ("/api/v1/retire_workers", "/proxy/80/127.0.0.1/", "/json/counts.json")
        for target in others:
            assert (await seen(running, target)).startswith(b"HTTP/1.1 404 ")
        unused = await running.open_page()
        await unused.aclose()

        assert said.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"bokeh" in said
        assert listeners(group.heads[0].pid) == before != []
        with pytest.raises(EngineError, match="are open"):
            for _ in range(100):
                await running.open_page()


async def seen(running: Showing, target: str) -> bytes:
    """Return what the page answers."""
    page = await running.open_page()
    ask = f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    await page.send(ask.encode())
    said = b""
    while data := await page.receive():
        said += data
    await page.aclose()
    await page.aclose()
    return said


def listeners(pid: int) -> list[Any]:
    found = psutil.Process(pid).net_connections("inet")
    return sorted(one.laddr for one in found if one.status == psutil.CONN_LISTEN)


# Clients

HOLD_THREE_RESULTS = """\
import os, sys
from distributed import Client, wait
with Client(timeout=10) as client:
    there = dict(workers=["office-1.1-0"], allow_other_workers=True, pure=False)
    held = [client.submit(os.urandom, 8, **there) for _ in range(3)]
    wait(held, timeout=10)
    before = client.gather(held)
    print("held", flush=True)
    sys.stdin.readline()
    print(client.gather(held) == before)
"""


async def test_a_client_computes_and_its_results_move(tmp_path: Path) -> None:
    """Shows what `connect_info` and a receipt say."""
    async with open_local_group(tmp_path) as group, dask.ENGINE.open(group) as running:
        one, two = two_members(group)
        with trio.fail_after(UP_AFTER):
            await add_both(running, one, two)
        env = client_environment(group, tmp_path / "tls", running.connect_info())
        process = await trio.lowlevel.open_process(
            [sys.executable, "-W", "error", "-c", HOLD_THREE_RESULTS],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        async with process.stdin, process.stdout:
            with trio.fail_after(2 * SOON):
                assert await process.stdout.receive_some() == b"held\n"

                receipt = await running.retire(one, by_after=SOON)

                assert (receipt.moved, receipt.lost) == (3, 0)
                await process.stdin.send_all(b"\n")
                assert await process.stdout.receive_some() == b"True\n"
                assert await process.wait() == 0
    assert group.broken == {}


def client_environment(
    group: LocalGroup, folder: Path, info: Mapping[str, str]
) -> dict[str, str]:
    write_tls(folder, group.certify("client"))
    env = {name: value.replace("{tls}", str(folder)) for name, value in info.items()}
    return {"PATH": "/usr/bin:/bin", **env}


def write_tls(folder: Path, tls: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in tls.items():
        (folder / name).write_bytes(data)


# Expelled


async def test_the_certificate_of_a_member_that_is_gone_opens_nothing(
    tmp_path: Path,
) -> None:
    """Threat: 77."""
    async with open_local_group(tmp_path) as group, dask.ENGINE.open(group) as running:
        one, two = two_members(group)
        await running.add(one)
        gone = context_of(tmp_path / "gone", one.tls)
        (head,) = listening(group.heads[0])
        assert await knock(*head, gone) != b""

        await running.lost(one)
        await running.add(two)  # it was not there yet, and must know

        (worker,) = listening(two.jobs[0])
        next_one = context_of(tmp_path / "next", one.next_one().tls)
        for host, port in (head, worker):
            assert await knock(host, port, gone) == b""
            assert await knock(host, port, next_one) != b""


async def test_who_stays_refuses_the_one_that_was_retired(tmp_path: Path) -> None:
    """Threat: 77."""
    async with open_local_group(tmp_path) as group, dask.ENGINE.open(group) as running:
        one, two = two_members(group)
        await add_both(running, one, two)
        gone = context_of(tmp_path / "gone", one.tls)
        doors = [*listening(group.heads[0]), *listening(two.jobs[0])]
        for host, port in doors:
            assert await knock(host, port, gone) != b""

        await running.retire(one, by_after=SOON)

        for host, port in doors:
            with trio.fail_after(SOON):  # a node passes it on to its workers
                while await knock(host, port, gone) != b"":
                    pass


def listening(job: LocalJob) -> list[tuple[str, int]]:
    leader = psutil.Process(job.pid)
    connections = itertools.chain.from_iterable(
        process.net_connections() for process in (leader, *leader.children())
    )
    return [tuple(c.laddr) for c in connections if c.status == psutil.CONN_LISTEN]


def context_of(folder: Path, tls: Mapping[str, bytes]) -> ssl.SSLContext:
    write_tls(folder, tls)
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def knock(host: str, port: int, context: ssl.SSLContext) -> bytes:
    """What Dask says first; b"" if it hangs up."""
    tcp = await trio.open_tcp_stream(host, port)
    stream = trio.SSLStream(tcp, context, https_compatible=True)
    async with stream:
        try:
            with trio.fail_after(SOON):
                return bytes(await stream.receive_some(100))
        except trio.BrokenResourceError:
            return b""
