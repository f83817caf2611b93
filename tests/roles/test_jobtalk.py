"""One job with its input and output through the control API: real socket, real jobs."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh import limits
from aemesh.client.mesh import Mesh
from aemesh.errors import (
    EngineError,
    UnknownNameError,
    UnreachableError,
    UsageError,
)
from aemesh.host.control.sockets import connected
from aemesh.host.jobs import JobRunner, open_jobs
from aemesh.host.processes import all_processes
from aemesh.model.job import Channel, JobExit
from aemesh.testing.memory_control import MemoryControl
from tests.roles.test_control import asked, raw, serving

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.client.memberjob import MemberJob

MIB = 1024 * 1024
# What pipes, sockets and queues on the way hold together: a little, whatever is sent.
ON_THE_WAY = 8 * MIB


@asynccontextmanager
async def jobs_served(tmp_path: Path, *names: str):
    """Serve a facade whose jobs are real processes; give mesh, their runner, and it."""
    members = dict.fromkeys(names or ("office-1",), "A")
    api = MemoryControl(members=members, engines={"A": "command"})
    async with open_jobs(tmp_path / "run", replaces_spares=False) as runner:
        api.jobs = runner.start
        async with serving(api, tmp_path):
            yield Mesh(tmp_path), runner, api


def shell(words: str) -> list[str]:
    return ["/bin/sh", "-c", words]


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def talk(job: MemberJob, said: bytes) -> tuple[bytes, bytes, JobExit]:
    """Give a job its input from a thread, and return all that it says."""

    def give() -> None:
        with suppress(UnreachableError):  # it has ended already
            job.send(said)
            job.close_input()

    told = {Channel.STDOUT: b"", Channel.STDERR: b""}
    with job:
        giver = threading.Thread(target=give)
        giver.start()
        for chunk in job.output():
            told[chunk.channel] += chunk.data
        giver.join()
        return told[Channel.STDOUT], told[Channel.STDERR], job.wait()


def runs(pid: int) -> bool:
    return (process := all_processes().get(pid)) is not None and process.alive


async def gone(runner: JobRunner) -> None:
    """Wait until no job runs any more."""
    with trio.fail_after(10):
        while runner.jobs:
            await trio.sleep(0.01)


async def test_bytes_of_any_kind_go_both_ways_at_one_time(tmp_path: Path):
    """Shows: E4."""
    said = bytes(range(256)) * 8 * 1024 + b"no newline"
    async with jobs_served(tmp_path) as (mesh, *_):
        job = await asked(mesh.job, "office-1", ["cat"], group="A")
        out, err, exit_ = await asked(talk, job, said)

    assert out == said
    assert err == b""
    assert exit_ == JobExit(0)


async def test_error_output_and_the_exit_code_come_as_they_are(tmp_path: Path):
    async with jobs_served(tmp_path) as (mesh, *_):
        words = shell("cat <f; echo $V; echo oh >&2; exit 3")
        job = await asked(mesh.job, "office-1", words, {"V": "v"}, files={"f": b"file"})
        out, err, exit_ = await asked(talk, job, b"")

    assert (out, err, exit_.code) == (b"filev\n", b"oh\n", 3)


async def test_a_job_may_end_before_it_took_its_input(tmp_path: Path):
    async with jobs_served(tmp_path) as (mesh, runner, _):
        job = await asked(mesh.job, "office-1", shell("exit 4"))
        with pytest.raises(UnreachableError, match="takes no input"):
            for _ in range(1000):
                await asked(job.send, b"x" * MIB)

        assert (await asked(job.wait)).code == 4
        await gone(runner)


async def test_a_job_that_does_not_read_makes_its_client_wait(tmp_path: Path):
    sent = 0

    def fill(job: MemberJob) -> None:
        nonlocal sent
        try:
            for _ in range(64):
                job.send(b"x" * MIB)
                sent += MIB
        except UnreachableError:
            pass

    async with jobs_served(tmp_path) as (mesh, runner, _):
        words = shell("until [ -e go ]; do sleep 0.1; done")
        job = await asked(mesh.job, "office-1", words)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(asked, fill, job)
            await still(lambda: sent)
            (runner.jobs[0].room / "go").touch()
        exit_ = await asked(job.wait)

    assert exit_.code == 0
    assert sent < ON_THE_WAY


async def test_a_client_that_does_not_read_makes_its_job_wait(tmp_path: Path):
    writes = python(
        "import os\n"
        "for n in range(64):\n"
        "    left = 1024 * 1024\n"
        "    while left: left -= os.write(1, bytes(left))\n"
        "    open('n', 'w').write(str(n + 1))"
    )

    async with jobs_served(tmp_path) as (mesh, runner, _):
        job = await asked(mesh.job, "office-1", writes)
        count = runner.jobs[0].room / "n"
        await still(lambda: count.read_text() if count.exists() else "")
        written = int(count.read_text() or "0") * MIB if count.exists() else 0
        sizes = await asked(lambda: [len(chunk.data) for chunk in job.output()])
        exit_ = await asked(job.wait)

    assert written < ON_THE_WAY
    assert sum(sizes) == 64 * MIB
    assert exit_.code == 0


async def still(look) -> None:
    """Wait until nothing changed for a while; a later change makes no test fail."""
    seen, times = None, 0
    with trio.fail_after(20):
        while times < 30:
            now = look()
            times = times + 1 if now == seen else 0
            seen = now
            await trio.sleep(0.01)


@pytest.mark.parametrize("fills", [False, True])
async def test_a_job_and_its_tree_end_when_the_client_hangs_up(
    tmp_path: Path, fills: bool
):
    async with jobs_served(tmp_path) as (mesh, runner, _):
        words = shell("setsid sleep 1000 & echo $!; sleep 1000")
        job = await asked(mesh.job, "office-1", words)
        chunk = await asked(lambda: next(job.output()))
        child = int(chunk.data)
        assert runs(child)
        async with trio.open_nursery() as nursery:
            if fills:  # so that the server does not read any more
                sent = 0

                def fill() -> None:
                    nonlocal sent
                    with pytest.raises(UnreachableError):
                        for sent in range(64 * MIB):  # noqa: B007
                            job.send(b"x" * MIB)

                nursery.start_soon(asked, fill)
                await still(lambda: sent)
            job.end()
        await gone(runner)

    assert not runs(child)


async def test_the_end_of_the_master_ends_the_job_and_is_told(tmp_path: Path):
    async with jobs_served(tmp_path) as (mesh, runner, _):
        job = await asked(mesh.job, "office-1", ["sleep", "1000"])
        (there,) = runner.jobs

    assert there.exit_now is not None
    with job, pytest.raises(UnreachableError):
        await asked(job.wait)


async def test_two_clients_have_a_job_each(tmp_path: Path):
    async with jobs_served(tmp_path) as (mesh, *_):
        one = await asked(mesh.job, "office-1", ["cat"])
        two = await asked(mesh.job, "office-1", ["cat"])
        second = await asked(talk, two, b"two")
        first = await asked(talk, one, b"one")

    assert (first[0], second[0]) == (b"one", b"two")


@pytest.mark.parametrize(
    ("worker", "group", "argv", "kind"),
    [
        ("office-9", None, ["true"], UnknownNameError),
        ("office-1", "B", ["true"], UnknownNameError),
        ("office-1", "A", ["/no/such/program"], EngineError),
        ("office-1", "A", [], EngineError),
        (
            "office-1",
            "A",
            ["echo", b"\xff".decode(errors="surrogateescape")],
            UsageError,
        ),
        ("office-1", "A", ["true", "x" * limits.CONTROL_BODY_BYTES], UsageError),
    ],
)
async def test_a_job_that_cannot_start_is_refused_as_any_request(
    tmp_path: Path, worker: str, group: str | None, argv: list[str], kind
):
    async with jobs_served(tmp_path) as (mesh, *_):
        with pytest.raises(kind):
            await asked(mesh.job, worker, argv, group=group)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0\0\0\x01",  # half a frame
        b"\xff\xff\xff\xff",  # a length beyond all bounds
        (limits.CONTROL_BODY_BYTES + 1).to_bytes(4, "big") + b"{",
        b"\0\0\0\x02[]",
        b"\0\0\0\x12" + b'{"worker":"w","x"}',
        b"\0\0\x10\0" + b"[" * 0x1000,
    ],
)
async def test_a_first_frame_that_says_nothing_is_refused(tmp_path: Path, body: bytes):
    async with jobs_served(tmp_path) as (mesh, runner, _):
        path = mesh.folder / "run" / "control.sock"
        status, content = await asked(raw, path, "POST", "/v1/jobs", body)

    assert status == 400
    assert b'"usage/words"' in content
    assert not runner.jobs


@pytest.mark.parametrize(
    "frame", [b"\0\0\0\x02\x01x", b"\xff\xff\xff\xff", b"\0\0\0\0"]
)
async def test_what_is_no_input_of_a_job_ends_it(tmp_path: Path, frame: bytes):
    async with jobs_served(tmp_path) as (mesh, runner, _):
        job = await asked(mesh.job, "office-1", ["sleep", "1000"])
        with job:
            await asked(job._talk.write, frame)
            with pytest.raises(UnreachableError):
                await asked(job.wait)
            await gone(runner)


async def test_a_request_that_breaks_off_is_no_end_of_input(tmp_path: Path):
    """A half of a file must not look like one."""
    async with jobs_served(tmp_path) as (mesh, runner, _):
        sock = await asked(connected, mesh.folder / "run" / "control.sock", 10)
        order = b'{"worker":"office-1","argv":["sh","-c","cat >x; cp x %s"]}'
        order %= os.fsencode(tmp_path / "whole")
        frames = len(order).to_bytes(4, "big") + order + b"\0\0\0\x05\0half"
        head = (
            b"POST /v1/jobs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        with sock:
            sock.sendall(head + b"%x\r\n%b\r\n" % (len(frames), frames))
            await asked(sock.recv, 10)
        await gone(runner)

    assert not (tmp_path / "whole").exists()
