"""The sandbox around jobs: what is outside of it cannot be read, written or seen."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from venv import EnvBuilder

import pytest
import trio

from aemesh.cli.settings import WorkerOptions
from aemesh.errors import EngineError, SettingsError, UsageError
from aemesh.host.jobroom import PYTHON
from aemesh.host.jobs import JobRunner, open_jobs
from aemesh.host.jobtree import MARKER, marked
from aemesh.host.localjob import LocalJob
from aemesh.host.processes import all_processes
from aemesh.host.sandbox import find_sandbox
from aemesh.model.job import Channel, JobExit, JobSpec
from aemesh.model.names import JobId

# Leaves the session, or the group, in which it was started, as timeout(1) does.
_APART = "import os, sys; getattr(os, sys.argv[1])(); os.execvp('sh', sys.argv[2:])"
needs_bwrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a secret, which is where the state is, too."""
    (tmp_path / "secret").write_text("of mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@asynccontextmanager
async def jobs_in(home: Path, *, spares: int = 0) -> AsyncIterator[JobRunner]:
    """Run jobs in the sandbox, for half a minute at most."""
    sandbox = find_sandbox("bwrap", state=home / "state")
    assert sandbox is not None
    with trio.fail_after(30):
        folder = home / "state" / "run"
        async with open_jobs(folder, spares=spares, sandbox=sandbox) as jobs:
            yield jobs


async def said_by(jobs: JobRunner, spec: JobSpec) -> str:
    """Run a job to its end; return what it says, with its errors."""
    job = await jobs.start(JobId("one"), spec)
    await job.close_input()
    said = b"".join([chunk.data async for chunk in job.output()])
    await job.wait()
    return said.decode()


async def said_in(home: Path, script: str) -> str:
    """Run a script in the sandbox; return what it says, with its errors."""
    spec = JobSpec(argv=("sh", "-c", script), files={"own": b"my file"})
    async with jobs_in(home) as jobs:
        return await said_by(jobs, spec)


async def first_said(job: LocalJob) -> bytes:
    """Return the first that a job says."""
    async for chunk in job.output():
        return chunk.data
    return b""


@needs_bwrap
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("cat own; echo more > new; cat new", "my filemore\n"),
        ("cat ~/secret", "No such file"),
        ("ls ~/state/run/jobs", "one.1\none.1.sock\n"),
        ("ls -A ~", "state\n"),
        ("echo x > /usr/x", "Read-only file system"),
        ("unshare -U true && echo made", "unshare: "),
        ("sudo -n true || mount -t tmpfs none /mnt && echo mounted", "mount: "),
        ("ls /proc/self/fd | wc -l", "4\n"),  # its own three, and that of ls
        ("grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"),
        ("ps -e -o comm= 2>/dev/null | grep -c python; true", "0"),
    ],
)
async def test_what_is_outside_cannot_be_had(home: Path, script: str, said: str):
    """Shows: E5. Threat: 85."""
    found = await said_in(home, script)
    assert said in found
    assert "of mine" not in found
    assert "made" not in found
    assert "mounted" not in found


@needs_bwrap
async def test_what_is_put_into_temporary_folders_goes_with_the_job(home: Path):
    """Shows: E5."""
    name = f"aemesh-{os.getpid()}"
    script = f"for d in /tmp /var/tmp /dev/shm ~; do touch $d/{name} && echo ok; done"
    assert await said_in(home, script) == "ok\n" * 4
    places = ("/tmp", "/var/tmp", "/dev/shm", str(home))
    assert not [place for place in places if os.path.exists(f"{place}/{name}")]


@needs_bwrap
async def test_a_signal_ends_the_tree_of_a_sandbox(home: Path):
    """Shows: L7."""
    async with jobs_in(home) as jobs:
        spec = JobSpec(argv=("sh", "-c", "echo up; sleep 1000 & sleep 1000"))
        job = await jobs.start(JobId("one"), spec)
        assert await first_said(job) == b"up\n"
        await job.end(term_after=1.0)
        assert jobs.jobs == ()


def test_without_bubblewrap_a_worker_that_is_to_have_it_does_not_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threat: 85."""
    monkeypatch.setenv("PATH", str(home))
    with pytest.raises(SettingsError, match="no bwrap"):
        find_sandbox("bwrap", state=home)
    (home / "bwrap").write_text("#!/bin/sh\necho not allowed >&2\nexit 1\n")
    (home / "bwrap").chmod(0o755)
    with pytest.raises(SettingsError) as caught:
        find_sandbox("bwrap", state=home)
    assert caught.value.why == "not allowed"


def test_nobody_has_the_label_without_the_sandbox():
    with pytest.raises(UsageError, match="they do not"):
        WorkerOptions(labels=("sandbox",)).checked_labels()
    assert WorkerOptions(labels=("gpu",), sandbox="bwrap").checked_labels() == (
        "gpu",
        "sandbox",
    )


@needs_bwrap
async def test_a_masters_variables_do_not_reach_bubblewrap(home: Path):
    """Its loader would write where they say, outside. Shows: E5. Threat: 85."""
    loader = {"LD_DEBUG": "files", "LD_DEBUG_OUTPUT": str(home / "loot")}
    async with jobs_in(home) as jobs:
        found = await said_by(
            jobs, JobSpec(argv=("sh", "-c", "ls ~; true"), env=loader)
        )
    assert "loot" in found  # the loader does so, within
    assert [path.name for path in home.glob("loot*")] == []


@needs_bwrap
async def test_variables_are_a_secret_of_the_job_and_its_marker_is_not(home: Path):
    """`ps` shows arguments to every user. Threat: 85; shows: L7."""
    script = 'echo "$TOKEN"; read line'
    spec = JobSpec(argv=("sh", "-c", script), env={"TOKEN": "of mine"})
    async with jobs_in(home) as jobs:
        job = await jobs.start(JobId("one"), spec)
        assert await first_said(job) == b"of mine\n"
        members = job.tree.members(all_processes())
        texts = [Path(f"/proc/{one.pid}/cmdline").read_bytes() for one in members]
        inherited = Path(f"/proc/{job.pid}/environ").read_bytes()
        assert len(members) == 3  # bubblewrap's two, and the job
        assert marked(members, inherited.decode()) == members
        await job.close_input()
        await job.wait()
    assert not [text for text in texts if b"of mine" in text]
    assert inherited == f"{MARKER}={job.tree.marker}\0".encode()


@needs_bwrap
async def test_a_job_has_the_variables_that_it_would_have_without(home: Path):
    """Shows: E5."""
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    spec = JobSpec(
        argv=(PYTHON, "-c", script), env={"A": "two words", "B": "", "C": "\n"}
    )
    async with jobs_in(home) as jobs:
        within = json.loads(await said_by(jobs, spec))
    async with open_jobs(home / "state" / "run", spares=0) as jobs:
        without = json.loads(await said_by(jobs, spec))
    assert within.pop(MARKER) != without.pop(MARKER)  # each job has its own
    # bubblewrap's own, as a shell's; a job without has the agent's, if it has one
    assert within.pop("PWD") == f"{home}/state/run/jobs/one.1"
    without.pop("PWD", None)
    assert within == without


@needs_bwrap
async def test_sockets_of_the_owners_session_are_hidden(home: Path):
    """`systemd --user` and ssh-agent do what their user says. Shows: E5. Threat: 85."""
    found = await said_in(home, "ls -A /run /var/run/ /run/user 2>&1; true")
    assert "cannot access '/run/user'" in found
    assert "dbus" not in found
    assert not [one for one in found.split() if one.endswith((".sock", ".pid"))]


@needs_bwrap
async def test_a_home_behind_a_link_with_python_in_it_is_hidden_and_works(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """/home/u is a link to /data/u somewhere. Shows: E5. Threat: 85."""
    link = home.parent / f"{home.name}-link"
    link.symlink_to(home)
    monkeypatch.setenv("HOME", str(link))
    EnvBuilder(symlinks=True).create(link / "venv")
    monkeypatch.setattr(sys, "prefix", str(link / "venv"))
    monkeypatch.setattr(sys, "executable", str(link / "venv" / "bin" / "python"))
    script = "import sys, os; print(sys.prefix, os.listdir(os.environ['HOME']))"
    async with jobs_in(link) as jobs:
        found = await said_by(jobs, JobSpec(argv=(PYTHON, "-c", script)))
    assert found.startswith(str(link / "venv"))
    assert "secret" not in found


@needs_bwrap
def test_the_trial_is_the_sandbox_of_jobs_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threat: 85; state that is made later would not be hidden."""
    find_sandbox("bwrap", state=home / "later" / "state")
    assert list((home / "later" / "state").iterdir()) == []
    (home / "python").write_text("#!/bin/sh\n")
    (home / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(home / "python"))
    with pytest.raises(SettingsError) as caught:
        find_sandbox("bwrap", state=home / "state")
    assert "No such file or directory" in (caught.value.why or "")
    assert caught.value.hint is None  # it is not the kernel's fault


@needs_bwrap
@pytest.mark.parametrize("name", ["no-such-program", "./no-such-file", "/no/such"])
async def test_a_program_that_is_not_there_cannot_be_started(home: Path, name: str):
    """As without a sandbox, where the kernel says so."""
    async with jobs_in(home) as jobs:
        with pytest.raises(EngineError, match="cannot start") as caught:
            await jobs.start(JobId("one"), JobSpec(argv=(name,)))
        assert caught.value.why == "No such file or directory"
        assert await said_by(jobs, JobSpec(argv=("sh", "-c", "echo on"))) == "on\n"


@needs_bwrap
async def test_what_is_no_program_cannot_be_started_and_nothing_is_told_of_home(
    home: Path,
):
    """A master could ask which folders there are. Shows: E5."""
    (home / "folder").mkdir()
    (home / "program").symlink_to("/bin/true")
    whys = {}
    async with jobs_in(home) as jobs:
        for name in ("/usr", "/etc/passwd", f"{home}/folder", f"{home}/program"):
            with pytest.raises(EngineError) as caught:
                await jobs.start(JobId("one"), JobSpec(argv=(name,)))
            whys[name] = caught.value.why

    assert list(whys.values()) == [
        "Permission denied",
        "Permission denied",
        "No such file or directory",
        "No such file or directory",
    ]


@needs_bwrap
@pytest.mark.parametrize(
    "around",
    [[], ["{python}", "-c", _APART, "setsid"], ["{python}", "-c", _APART, "setpgrp"]],
    ids=["alone", "setsid", "setpgrp"],
)
async def test_a_job_that_is_asked_to_end_has_its_time_for_it(
    home: Path, around: list[str]
):
    """It saves what it has, and says how that went. Shows: L7."""
    saves = "trap 'sleep 0.3; echo saved; exit 3' TERM"
    script = f"{saves}; echo up; while :; do sleep 0.01; done"
    async with jobs_in(home) as jobs:
        job = await jobs.start(
            JobId("one"), JobSpec(argv=(*around, "sh", "-c", script))
        )
        said = b""
        async for chunk in job.output():
            if not said:
                job.end_nowait(term_after=5.0)
            if chunk.channel is Channel.STDOUT:  # the shell tells of its sleep, too
                said += chunk.data
        end = await job.wait()
    assert said == b"up\nsaved\n"
    assert end == JobExit(3, "released")


@needs_bwrap
async def test_a_job_that_is_asked_to_end_while_it_starts_ends(home: Path):
    """Bubblewrap may not have started the job then. Shows: L7."""
    async with jobs_in(home) as jobs:
        for _ in range(10):
            job = await jobs.start(JobId("one"), JobSpec(argv=("sleep", "1000")))
            end = await job.end(term_after=60.0)
            assert end.code == 128 + signal.SIGTERM


@needs_bwrap
async def test_the_memory_of_a_spare_is_that_of_what_waits(home: Path):
    """It is behind two processes of bubblewrap, which have nearly none."""
    size = 50_000_000
    script = f"kept = bytearray({size}); print('warm', flush=True); input()"
    async with jobs_in(home, spares=1) as jobs:
        await jobs.start_spare(JobSpec(argv=(PYTHON, "-c", script)))
        await jobs.warm.changed.wait()
        assert jobs.warm.memory > size
