"""The warden and its agent: signals counted once, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.host.guard import Notice, open_guard
from aemesh.host.processes import read_process

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# An agent that tells both process ids, then does what the test says.
PROGRAM = """
import os, signal, subprocess, sys, time
from aemesh.host.warden import run_guarded

def main():
    print(os.getppid(), os.getpid(), flush=True)
{body}

sys.exit(run_guarded(main))
"""
LISTEN = """
import trio
from aemesh.host.guard import open_guard

async def listen():
    async with open_guard() as guard:
        print("listening", flush=True)
        while True:
            notice = await guard.receive()
            print(notice.value, flush=True)
            if notice.value != "interrupt":
                return

trio.run(listen)
return 7
"""


class Agent:
    """A guarded program that runs; `pid` is the warden, the process we started."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.warden, self.agent = (int(word) for word in self.line().split())

    def line(self) -> str:
        return self.process.stdout.readline().strip()

    def end(self) -> int:
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def guarded(body: str, **options: object) -> Iterator[Agent]:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    program = PROGRAM.replace("{body}", indented)
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    ) as process:
        agent = Agent(process)
        try:
            yield agent
        finally:
            for pid in (agent.agent, agent.warden):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    now = read_process(pid)
    return now is None or not now.alive


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 0", 0),
        ("return 5", 5),
        ("sys.exit(6)", 6),
        ("raise RuntimeError('ours')", 1),
        ("os._exit(9)", 9),
        ("os.kill(os.getpid(), signal.SIGKILL)", 137),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(9)", 143),
        ("os.abort()", 134),
    ],
)
def test_the_warden_ends_as_the_agent_ended(body: str, code: int):
    with guarded(body, stderr=subprocess.DEVNULL) as one:
        assert one.end() == code
        assert one.warden == one.process.pid


def test_an_interrupt_of_the_whole_terminal_counts_once():
    with guarded(LISTEN) as one:
        assert one.line() == "listening"
        os.killpg(one.warden, signal.SIGINT)  # as Ctrl-C does, to both
        assert one.line() == "interrupt"
        os.killpg(one.warden, signal.SIGTERM)
        assert one.line() == "terminate"
        assert one.end() == 7


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_request_to_end_reaches_the_agent_through_the_warden(number: signal.Signals):
    with guarded(LISTEN) as one:
        assert one.line() == "listening"
        os.kill(one.warden, number)
        assert one.line() == "terminate"
        assert one.end() == 7


def test_a_request_to_end_reaches_the_agent_directly():
    with guarded(LISTEN) as one:
        assert one.line() == "listening"
        os.kill(one.agent, signal.SIGTERM)
        assert one.line() == "terminate"
        assert one.end() == 7


def test_a_direct_interrupt_of_the_agent_is_left_to_the_warden():
    with guarded(LISTEN) as one:
        assert one.line() == "listening"
        os.kill(one.agent, signal.SIGINT)
        os.kill(one.warden, signal.SIGINT)
        assert one.line() == "interrupt"
        os.kill(one.warden, signal.SIGTERM)
        assert one.line() == "terminate"


def test_an_agent_whose_warden_was_killed_is_told():
    with guarded(LISTEN) as one:
        assert one.line() == "listening"
        os.kill(one.warden, signal.SIGKILL)
        assert one.line() == "orphaned"


def test_a_signal_before_the_agent_listens_is_not_lost():
    with guarded("sys.stdin.readline()" + LISTEN, stdin=subprocess.PIPE) as one:
        os.kill(one.warden, signal.SIGTERM)
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        assert one.line() == "listening"
        assert one.line() == "terminate"


async def test_the_third_interrupt_kills_an_agent_that_hangs():
    with guarded("while True: time.sleep(1000)") as one:
        with trio.fail_after(10):
            while one.process.poll() is None:
                os.kill(one.warden, signal.SIGINT)
                await trio.sleep(0.01)  # two at once would count as one
        assert one.end() == 137


def test_what_was_ignored_stays_ignored():
    """As under ``nohup``, or in the background of a script."""
    body = "print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)\nreturn 0"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with guarded(body) as one:
            assert one.line() == "True"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_jobs_of_the_agent_do_not_ignore_what_it_ignores():
    body = (
        "s = subprocess.run(['cat', '/proc/self/status'], stdout=-1, text=True)\n"
        "fields = dict(line.split(':\\t') for line in s.stdout.splitlines())\n"
        "print(int(fields['SigIgn'], 16) & 3, int(fields['SigBlk'], 16), flush=True)"
    )
    with guarded(body) as one:
        assert one.line() == "0 0"


# Grandchildren that nobody but a subreaper could find.
RUNAWAYS = [
    "setsid sh -c 'echo $$; exec sleep 1000' &",
    "setsid env -i sh -c 'sh -c \"echo \\$\\$; exec sleep 1000\" & exit' &",
    "setsid sh -c 'trap \"\" TERM INT HUP; echo $$; sleep 1000; sleep 1000' &",
    "setsid sh -c 'echo $$; kill -STOP $$' &",
]


@pytest.mark.parametrize("runaway", RUNAWAYS)
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), 9)", "os._exit(0)", "return 0"])
async def test_nothing_outlives_the_agent(runaway: str, end: str):
    """Shows: L7; Threat: 90."""
    body = (
        f"p = subprocess.Popen(['sh', '-c', {runaway!r}], start_new_session=True)\n"
        f"p.wait()\nsys.stdin.readline()\n{end}"
    )
    with guarded(body, stdin=subprocess.PIPE) as one:
        pid = int(one.line())
        assert not gone(pid)
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        one.end()

        assert gone(pid)


def test_importing_the_warden_loads_nothing_heavy():
    program = (
        "import sys; import aemesh.host.warden;"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    heavy = {"trio", "zeroconf", "cryptography", "nacl", "ssl", "threading", "asyncio"}
    assert not heavy & set(shown.stdout.split())


def test_the_agent_is_alone_with_its_warden_and_has_one_thread():
    body = "print(len(os.listdir('/proc/self/task')), *os.listdir('/proc/self/fd'))"
    with guarded(body, close_fds=True) as one:
        threads, *fds = one.line().split()
        assert threads == "1"
        assert len(fds) == 5  # 0, 1, 2, the pipe, and the folder being listed


# --- without a warden -------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "notice"),
    [
        (signal.SIGINT, Notice.INTERRUPT),
        (signal.SIGTERM, Notice.TERMINATE),
        (signal.SIGHUP, Notice.TERMINATE),
    ],
)
async def test_without_a_warden_signals_come_directly(
    number: signal.Signals, notice: Notice
):
    before = signal.getsignal(number)

    async with open_guard() as guard:
        signal.raise_signal(number)
        with trio.fail_after(5):
            assert await guard.receive() is notice

    assert signal.getsignal(number) is before


async def test_a_guard_leaves_no_file_open():
    before = os.listdir("/proc/self/fd")
    async with open_guard():
        pass
    assert os.listdir("/proc/self/fd") == before


# --- orphans of jobs, in an agent that lives on -----------------------------

JOBS = """
import trio
from pathlib import Path
from aemesh.host.jobs import open_jobs
from aemesh.model.job import JobSpec

async def work():
    async with open_jobs(Path(os.environ["RUN"])) as jobs:
        await jobs.start_spare(JobSpec(argv=("sleep", "99")))
        job = await jobs.start("one", JobSpec(argv=("sh", "-c", os.environ["SCRIPT"])))
        print((await anext(job.output())).data.decode().strip(), flush=True)
        await job.close_input()
        await job.wait()
        print("over", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        print([spare.running for spare in jobs.spares], flush=True)

trio.run(work)
return 0
"""


@pytest.mark.parametrize(
    ("script", "dead_before"),
    [
        # no mark of its job: session, parents and environment are others
        (
            "setsid env -i sh -c 'sh -c \"echo \\$\\$; exec sleep 99\"& exit' & read x",
            False,
        ),
        # dead at once, and nobody's child but the agent's
        ("sh -c 'setsid sh -c \"echo \\$\\$\" &'; read x", True),
    ],
)
async def test_orphans_of_jobs_are_ended_and_buried_by_the_agent(
    script: str, dead_before: bool, tmp_path: Path
):
    env = {**os.environ, "RUN": str(tmp_path / "run"), "SCRIPT": script}
    with guarded(JOBS, stdin=subprocess.PIPE, env=env) as one:
        pid = int(one.line())
        assert one.line() == "over"

        with trio.fail_after(10):
            while read_process(pid) if dead_before else not gone(pid):
                await trio.sleep(0.005)  # not even a zombie is left

        assert not gone(one.agent)
        one.process.stdin.write("\n")
        one.process.stdin.flush()
        assert one.line() == "[True]"  # a spare is nobody's orphan
        assert one.end() == 0
