"""``aemesh rsh`` as those see it who think that it is ssh."""

from __future__ import annotations

import fcntl
import os
import pwd
import shlex
import signal
import subprocess
import sys
import termios
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.host.processes import all_processes
from tests.roles.test_jobtalk import gone, jobs_served, still

if TYPE_CHECKING:
    from aemesh.host.jobs import JobRunner

ME = pwd.getpwuid(os.geteuid()).pw_name


class Rsh:
    """`aemesh rsh` with its state directory."""

    def __init__(self, state: Path, home: Path, runner: JobRunner) -> None:
        self.argv = [sys.executable, "-m", "aemesh", "--state", str(state), "rsh"]
        self.home = home
        self.runner = runner

    async def __call__(
        self, *words: str, said: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        with trio.fail_after(30):
            return await trio.run_process(
                [*self.argv, *words],
                stdin=said,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )

    async def start(self, *words: str, **pipes: int) -> trio.Process:
        return await trio.lowlevel.open_process([*self.argv, *words], **pipes)


@pytest.fixture
async def rsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))  # of the worker
    monkeypatch.delenv("AEMESH_GROUP", raising=False)
    async with jobs_served(tmp_path) as (_, runner, _):
        yield Rsh(tmp_path, home, runner)


async def test_a_shell_in_the_users_home_reads_the_words_as_one_line(rsh: Rsh):
    """Shows: E4."""
    done = await rsh("office-1", "pwd;", "echo  $((1+1))", "'a  b'; exit 7")

    assert done.stdout.decode() == f"{rsh.home}\n2 a  b\n"
    assert done.stderr == b""
    assert done.returncode == 7


async def test_bytes_go_through_as_they_are(rsh: Rsh):
    said = bytes(range(256)) * 4096

    done = await rsh("office-1", "tee /dev/stderr", said=said)

    assert done.stdout == done.stderr == said


async def test_pipes_that_do_not_block_lose_nothing(rsh: Rsh):
    """rsync gives its remote shell such ones, and reads when it likes."""
    size = 4_000_000
    reading, output = os.pipe()
    given, giving = os.pipe()
    for fd in (given, output):
        os.set_blocking(fd, False)
    words = f"echo up; cat; head -c {size} /dev/zero"
    process = await rsh.start("office-1", words, stdin=given, stdout=output)
    os.close(given)
    os.close(output)
    with trio.fail_after(30):
        async with await trio.open_file(reading, "rb") as out:
            assert await out.readline() == b"up\n"
            os.write(giving, b"late\n")  # our input was looked at, and was empty
            os.close(giving)
            assert await out.readline() == b"late\n"
            await still(lambda: waiting(reading))  # the pipe is full
            told = await out.read()
            assert await process.wait() == 0
    assert told == bytes(size)


def waiting(fd: int) -> int:
    """Return how many bytes of a pipe wait to be read."""
    return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)


async def test_what_is_said_comes_at_once(rsh: Rsh):
    process = await rsh.start(
        "office-1", "read x; echo $x; read y; echo $y", stdin=-1, stdout=-1
    )
    assert process.stdin is not None
    assert process.stdout is not None

    with trio.fail_after(30):
        for word in (b"one\n", b"two\n"):
            await process.stdin.send_all(word)
            assert await process.stdout.receive_some() == word
        assert await process.wait() == 0
        await process.stdin.aclose()
        await process.stdout.aclose()


@pytest.mark.parametrize(
    "options",
    [
        ["-x"],
        ["-q", "-T", "-o", "BatchMode=yes", "-oControlPath=none", "-p", "22"],
        ["-l", ME],
        ["-i", "id_ed25519", "-J", "gate"],
        ["--group", "A"],
        ["-xqT4"],
    ],
)
async def test_options_of_ssh_are_taken(rsh: Rsh, options: list[str]):
    done = await rsh(*options, "office-1", "echo", "-n", "-l", "x")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"-l x", b"")


@pytest.mark.parametrize(
    "words",
    [
        ["--", "office-1", "echo", "x"],
        ["office-1", "--", "echo", "x"],
        ["-x", "office-1", "-n", "-l", ME, "echo", "x"],
        ["office-1", "-xo", "Batch=yes", "--", "echo", "x"],
    ],
)
async def test_options_may_stand_behind_the_host(rsh: Rsh, words: list[str]):
    assert (await rsh(*words)).stdout == b"x\n"


async def test_n_gives_an_empty_input(rsh: Rsh):
    assert (await rsh("-n", "office-1", "cat", said=b"not this")).stdout == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["office-9", "true"], 'unknown worker "office-9": known: office-1'),
        (["office-1"], "what is to run?"),
        (["-W", "x", "office-1", "true"], "no such option '-W'"),
        ([], "missing argument"),
        (["-l", "nobody-here", "office-1", "true"], f"runs as {ME}, not as nobody-"),
        (["nobody-here@office-1", "true"], f"the worker runs as {ME}, not as nobody-"),
        (["office-1", b"\xff".decode(errors="surrogateescape")], "is no UTF-8"),
        (["office-1", *["x" * 100_000] * 2], "over 131071 bytes"),
    ],
)
async def test_what_fails_on_our_side_is_255(rsh: Rsh, words: list[str], said: str):
    done = await rsh(*words)

    assert done.returncode == 255
    assert said in done.stderr.decode()
    assert done.stdout == b""


async def test_without_a_master_it_is_255(tmp_path: Path):
    argv = [sys.executable, "-m", "aemesh", "--state", str(tmp_path), "rsh", "h", "w"]
    done = await trio.run_process(argv, capture_stderr=True, check=False)

    assert done.returncode == 255
    assert b"no master is running" in done.stderr


@asynccontextmanager
async def sleeping(rsh: Rsh):
    """A command that waits, with a child in a session of its own."""
    process = await rsh.start(
        "office-1", "setsid sleep 1000 & echo $!; sleep 1000", stdout=-1, stderr=-1
    )
    assert process.stdout is not None
    with trio.fail_after(30):
        child = int(await process.stdout.receive_some())
    assert child in all_processes()
    yield process
    await gone(rsh.runner)
    left = all_processes().get(child)
    assert left is None or not left.alive
    await process.wait()
    await process.stdout.aclose()
    assert process.stderr is not None
    await process.stderr.aclose()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_a_signal_ends_the_command_there(rsh: Rsh, number: signal.Signals):
    async with sleeping(rsh) as process:
        os.kill(process.pid, number)

    assert process.returncode == (130 if number == signal.SIGINT else -number)


async def test_a_reader_that_goes_ends_the_command_there(rsh: Rsh):
    script = f"{' '.join(rsh.argv)} office-1 yes | head -1; echo ${{PIPESTATUS[0]}}"
    with trio.fail_after(30):
        done = await trio.run_process(["bash", "-c", script], capture_stdout=True)
        await gone(rsh.runner)
    assert done.stdout == b"y\n141\n"


@pytest.mark.parametrize(
    ("closed", "words", "said"),
    [
        ("<&-", "cat; echo a; exit 3", b"a\n"),
        (">&-", "echo a; echo b >&2; exit 3", b"b\n"),
        (">&- 2>&-", "echo a; exit 3", b""),
        ("<&- >&- 2>&-", "cat; echo a; exit 3", b""),
    ],
)
async def test_a_standard_file_that_is_closed_is_an_empty_one(
    rsh: Rsh, closed: str, words: str, said: bytes
):
    """The next file that is opened has its number: the socket to the master."""
    script = f"{shlex.join([*rsh.argv, 'office-1', words])} {closed}"
    with trio.fail_after(30):
        done = await trio.run_process(
            ["bash", "-c", script],
            stdin=b"not this",
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )

    assert (done.returncode, done.stdout + done.stderr) == (3, said)


async def test_a_command_that_the_worker_ended_is_255(rsh: Rsh):
    async with sleeping(rsh) as process:
        rsh.runner.end_all(term_after=0, reason="its time is over")
        assert process.stderr is not None
        told = b""
        with trio.fail_after(30):
            while piece := await process.stderr.receive_some():
                told += piece

    assert process.returncode == 255
    assert b"office-1 ended the command: its time is over" in told
