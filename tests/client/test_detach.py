"""``aemesh run --detach``: what becomes of a script when its terminal is gone."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from aemesh.cli.jobs import shown_age
from aemesh.client.jobs import JobFolder, Record, write_record
from aemesh.client.mesh import Mesh
from aemesh.errors import JobLostError, UnknownNameError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.processes import all_processes
from aemesh.host.processname import ProcessName
from aemesh.host.statedir import held_state
from aemesh.master.control import serve_control
from aemesh.model.trust import Role
from aemesh.testing.memory_control import MemoryControl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# It says who it is, waits for a file, and ends with a code.
SCRIPT = """
import os, pathlib, signal, subprocess, sys, time
way, code = sys.argv[1:]
if way == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if way == "forks":  # in a session of its own, with nothing that says whose it is
    left = subprocess.Popen(["sleep", "1000"], start_new_session=True, env={})
    print(left.pid, "left", flush=True)
try:
    os.open("/dev/tty", os.O_RDWR)
    terminal = "a terminal"
except OSError:
    terminal = "no terminal"
leads = os.getsid(0) == os.getpid()
print(os.getpid(), terminal, leads, sys.stdin.read() == "", flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.02)
print(os.path.exists(os.environ.get("CA", "nowhere")))
sys.exit(int(code))
"""


@dataclass
class Place:
    """A folder with the script in it, and the state directory."""

    folder: Path
    api: MemoryControl

    @property
    def environ(self) -> dict[str, str]:
        return {**os.environ, "AEMESH_STATE": str(self.folder / "state")}

    @property
    def jobs(self) -> JobFolder:
        return JobFolder(self.folder / "state")

    async def aemesh(self, *words: str) -> tuple[int, str, str]:
        done = await trio.run_process(
            [sys.executable, "-m", "aemesh", *words],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=self.environ,
            cwd=self.folder,
        )
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    async def detach(self, way: str = "plain", code: int = 0) -> str:
        words = ("run", "--detach", "--group", "A", "script.py", way, str(code))
        done, said, told = await self.aemesh(*words)
        assert done == 0, told
        return said.strip()

    async def script_pid(self, job: str) -> int:
        """Return the script's process, once it has said who it is."""
        return (await self.pids(job))[0]

    async def pids(self, job: str, *, lines: int = 1) -> list[int]:
        """Return the script's process, and then what it leaves behind."""
        said = (await self.said(job, lines=lines)).splitlines()
        return [int(line.split()[0]) for line in reversed(said)]

    async def said(self, job: str, *, lines: int = 1) -> str:
        text = ""
        with trio.fail_after(30):
            while text.count("\n") < lines:
                await trio.sleep(0.02)
                _, text, _ = await self.aemesh("logs", job)
        return text

    def go(self) -> None:
        (self.folder / "go").touch()


@asynccontextmanager
async def place(folder: Path):
    api = MemoryControl(
        members={"office-1": "A"},
        engines={"A": "dask"},
        env={"CA": "{tls}/ca.pem"},
    )
    here = Place(folder, api)
    (folder / "script.py").write_text(SCRIPT)
    try:
        yield here
    finally:
        for job in here.jobs.all():
            job.end(term_after=0)
            job.end_leftovers()


@asynccontextmanager
async def served(folder: Path):
    """The same, with a master."""
    async with place(folder) as here, serving(here):
        yield here


@asynccontextmanager
async def serving(here: Place):
    async with trio.open_nursery() as nursery:
        path = here.folder / "state" / "master" / SOCKET_FILE
        await nursery.start(serve_control, here.api, path)
        yield nursery.cancel_scope
        nursery.cancel_scope.cancel()


async def until(what: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not what():
            await trio.sleep(0.02)


def gone(*pids: int) -> Callable[[], bool]:
    def are_gone() -> bool:
        table = all_processes()
        return not any(pid in table and table[pid].alive for pid in pids)

    return are_gone


async def test_a_script_goes_on_when_its_terminal_is_gone(tmp_path: Path):
    """Shows: L6."""
    async with served(tmp_path) as here:
        words = ["run", "--detach", "--group", "A", "script.py", "plain", "5"]
        pid, terminal = pty.fork()
        if pid == 0:
            os.chdir(tmp_path)
            shell = [sys.executable, "-m", "aemesh", *words]
            os.execve(sys.executable, shell, here.environ)
        # Its command has ended, its terminal hangs up: a shell's logout.
        assert (await trio.to_thread.run_sync(os.waitpid, pid, 0))[1] == 0
        os.close(terminal)
        await here.said("1")
        os.kill(here.jobs.find("1").record.pid, signal.SIGHUP)

        said = (await here.said("1")).split(maxsplit=1)
        assert said[1] == "no terminal False True\n"
        (view,) = Mesh(here.folder / "state").jobs()
        assert (view.state, view.group, view.args) == ("running", "A", ("plain", "5"))
        here.go()
        code, text, _ = await here.aemesh("attach", "1")

        assert code == 5
        assert text.endswith("False True\nTrue\n"), "from its beginning to its end"
        _, listed, _ = await here.aemesh("jobs", "--json")
        shown = json.loads(listed)
        assert (shown["state"], shown["code"]) == ("failed", 5)
        assert not list((tmp_path / "state" / "clients").iterdir())


async def test_a_script_survives_the_restart_of_its_master(tmp_path: Path):
    """Shows: L6."""
    async with place(tmp_path) as here:
        async with serving(here) as master:
            job = await here.detach()
            await here.script_pid(job)
            master.cancel()
        with held_state(Role.MASTER, tmp_path / "state"):  # the next one starts
            here.go()
        code, text, _ = await here.aemesh("attach", job)

    assert (code, text.splitlines()[-1]) == (0, "True"), "its key was still there"


async def test_ctrl_c_leaves_the_script_running_and_says_so(tmp_path: Path):
    """Shows: L6."""
    async with served(tmp_path) as here:
        job = await here.detach()
        script = await here.script_pid(job)
        follower = await trio.lowlevel.open_process(
            [sys.executable, "-m", "aemesh", "attach", "--tail", "1"],
            stdout=-1,
            stderr=-1,
            env=here.environ,
            cwd=tmp_path,
        )
        assert (await follower.stdout.receive_some()).split()[0] == b"%d" % script
        follower.send_signal(signal.SIGINT)

        assert await follower.wait() == 130
        assert b"job 1 goes on" in await follower.stderr.receive_some()
        assert not gone(script)()
        await follower.stdout.aclose()
        await follower.stderr.aclose()
        here.go()
        assert (await here.aemesh("attach"))[0] == 0


@pytest.mark.parametrize("whom", ["supervisor", "both"])
async def test_a_job_whose_supervisor_was_killed_is_lost_and_leaves_nothing(
    tmp_path: Path, whom: str
):
    """Shows: L6, L7."""
    async with served(tmp_path) as here:
        job = await here.detach("deaf" if whom == "both" else "forks")
        pids = await here.pids(job, lines=1 if whom == "both" else 2)
        supervisor = here.jobs.find(job).record.pid
        agent = all_processes()[pids[0]].parent
        for pid in [agent, supervisor] if whom == "both" else [supervisor]:
            os.kill(pid, signal.SIGKILL)
        if whom == "supervisor":
            await until(gone(*pids, agent))

        code, _, told = await here.aemesh("attach", job)

        assert code == JobLostError.exit_code
        assert f"job {job} (script.py) is lost" in told
        await until(gone(*pids, agent, supervisor))
        (view,) = Mesh(here.folder / "state").jobs()
        assert (view.state, view.code) == ("lost", None)


async def test_a_killed_agent_is_a_failure_and_leaves_nothing(tmp_path: Path):
    async with served(tmp_path) as here:
        job = await here.detach()
        script = await here.script_pid(job)
        os.kill(all_processes()[script].parent, signal.SIGKILL)

        assert (await here.aemesh("attach", job))[0] == 137
        await until(gone(script))


@pytest.mark.parametrize(("way", "code"), [("plain", 143), ("deaf", 137)])
async def test_a_job_is_asked_to_end_and_then_killed(
    tmp_path: Path, way: str, code: int
):
    async with served(tmp_path) as here:
        job = await here.detach(way)
        script = await here.script_pid(job)

        within = "1s" if way == "deaf" else "60s"
        done, _, told = await here.aemesh("jobs", "end", job, "--within", within)

        assert done == 0
        assert f"job 1: failed {code}" in told
        await until(gone(script))
        assert (await here.aemesh("jobs", "end", job))[0] == 0, "twice is no harm"


async def test_what_a_script_leaves_behind_ends_with_it(tmp_path: Path):
    async with served(tmp_path) as here:
        job = await here.detach("forks")
        pids = await here.pids(job, lines=2)
        here.go()

        assert (await here.aemesh("attach", job))[0] == 0
        assert gone(*pids)()


async def test_what_cannot_become_anything_is_told_at_once(tmp_path: Path):
    async with served(tmp_path) as here:
        words = ("run", "--detach", "--group", "B", "script.py")
        code, said, told = await here.aemesh(*words)

        assert (code, said) == (UnknownNameError.exit_code, "")
        assert 'unknown group "B": known: A' in told
        assert here.jobs.all() == []


async def test_what_goes_wrong_later_is_in_the_output(tmp_path: Path):
    async with served(tmp_path) as here:
        (tmp_path / "script.py").write_text("import nothing_of_this_name")
        job = await here.detach()

        code, text, _ = await here.aemesh("attach", job)

    assert code == 1
    assert "No module named 'nothing_of_this_name'" in text


async def test_without_a_group_it_has_this_machine_alone(tmp_path: Path):
    """Shows: L6."""
    async with served(tmp_path) as here:
        (tmp_path / "script.py").write_text(
            "from distributed import Client\n"
            "if __name__ == '__main__':\n"
            "    with Client() as client:\n"
            "        print(client.submit(sum, range(100)).result())\n"
            "    raise SystemExit(4)\n"
        )
        assert (await here.aemesh("run", "--detach", "script.py"))[0] == 0

        code, text, _ = await here.aemesh("attach")

        assert (code, text) == (4, "4950\n")
        assert not list((tmp_path / "state" / "laptop").iterdir())


# --- without processes ------------------------------------------------------


def _record(name: ProcessName) -> Record:
    return Record(
        script="script.py",
        args=(),
        group=None,
        cwd="/",
        started_at=0.0,
        marker="0" * 32,
        host=name.host,
        boot=name.boot,
        pid=name.pid,
        ticks=name.started,
    )


OURS = ProcessName.ours()


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "running"),
        ({"boot": "0" * 12}, "lost"),  # after a reboot, whoever has the number now
        ({"ticks": OURS.started + 1}, "lost"),
        ({"host": "elsewhere"}, "elsewhere"),
    ],
)
def test_a_state_is_true_after_a_reboot_and_on_a_shared_disk(
    tmp_path: Path, changed: dict, state: str
):
    record = msgspec.structs.replace(_record(OURS), **changed)
    folder = JobFolder(tmp_path).new()
    write_record(folder, record)

    (job,) = JobFolder(tmp_path).all()

    assert job.view().state == state
    assert job.view().state == state, "asking changes nothing"
    assert (job.ended() is None) == (state in {"running", "elsewhere"})


def test_numbers_are_not_used_again_and_old_jobs_go(tmp_path: Path):
    jobs = JobFolder(tmp_path)
    for code in (0, 1, None, 0):
        write_record(jobs.new(), _record(OURS)).mark_ended(code)
    write_record(jobs.new(), _record(OURS))

    assert [job.view().state for job in jobs.all()] == [
        "done", "failed", "lost", "done", "running",
    ]  # fmt: skip
    assert jobs.clean(keep=3) == ["1"]
    assert jobs.clean(keep=9) == jobs.clean(keep=4) == []
    assert jobs.clean() == ["2", "3", "4"]
    assert [job.id for job in jobs.all()] == ["5"]
    jobs.find("5").remove()
    assert jobs.new().name == "6"


def test_a_damaged_record_is_no_job_and_names_nothing_to_kill(tmp_path: Path):
    jobs = JobFolder(tmp_path)
    (jobs.new() / "job.json").write_text('{"pid": 1')

    assert jobs.all() == []
    with pytest.raises(UnknownNameError):
        jobs.find("1")


def test_who_has_seen_enough_of_the_output_is_no_bug_of_ours(tmp_path: Path):
    folder = JobFolder(tmp_path).new()
    write_record(folder, _record(OURS)).mark_ended(0)
    (folder / "output.0").write_bytes(b"line\n" * 100_000)
    words = [sys.executable, "-m", "aemesh", "logs", "--state", str(tmp_path)]

    logs = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert logs.stdout is not None
    assert logs.stdout.readline() == b"line\n"
    logs.stdout.close()

    assert (logs.communicate(timeout=30)[1], logs.returncode) == (b"", 141)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0.4, "0s"), (59.9, "59s"), (60, "1m"), (3725, "1h 2m"), (90_000, "1d 1h")],
)
def test_an_age_is_shown_in_two_units(seconds: float, shown: str):
    assert shown_age(seconds) == shown
