"""The sandbox around jobs: what is outside of it cannot be read, written or seen."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
import trio

from aemesh.cli.settings import WorkerOptions
from aemesh.errors import SettingsError, UsageError
from aemesh.host.jobs import open_jobs
from aemesh.host.sandbox import Sandbox, find_sandbox
from aemesh.model.job import Channel, JobSpec
from aemesh.model.names import JobId

needs_bwrap = pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a secret, which is where the state is, too."""
    (tmp_path / "secret").write_text("of mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


async def said_in(home: Path, script: str, *, within: float = 30.0) -> str:
    """Run a script in the sandbox; return what it says, with its errors."""
    sandbox = find_sandbox("bwrap", state=home / "state")
    assert sandbox is not None
    with trio.fail_after(within):
        async with open_jobs(home / "state" / "run", spares=0, sandbox=sandbox) as jobs:
            spec = JobSpec(argv=("sh", "-c", script), files={"own": b"my file"})
            job = await jobs.start(JobId("one"), spec)
            await job.close_input()
            said = b"".join([chunk.data async for chunk in job.output()])
            await job.wait()
    return said.decode()


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
    sandbox = find_sandbox("bwrap", state=home / "state")
    with trio.fail_after(30):
        async with open_jobs(home / "state" / "run", spares=0, sandbox=sandbox) as jobs:
            spec = JobSpec(argv=("sh", "-c", "echo up; sleep 1000 & sleep 1000"))
            job = await jobs.start(JobId("one"), spec)
            async for chunk in job.output():
                assert chunk.channel is Channel.STDOUT
                break
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


def test_home_stays_hidden_from_a_worker_that_was_started_there(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """`python -m aemesh` puts the folder that it was started in on its path."""
    monkeypatch.setattr("sys.path", [str(home), str(home.parent), *sys.path])
    sandbox = Sandbox("bwrap", (home.resolve(), (home / "state").resolve()))
    argv = sandbox.argv(["true"], room=home / "state" / "run" / "jobs" / "one")
    bound = {Path(argv[at + 1]) for at, word in enumerate(argv) if word == "--ro-bind"}
    assert bound >= {Path("/")}
    assert not [path for path in bound - {Path("/")} if home.is_relative_to(path)]


def test_no_folder_of_the_interpreter_hides_the_job(tmp_path: Path):
    """The job's own folder comes last, so that it is there whatever is before it."""
    room = tmp_path / "jobs" / "one"
    argv = Sandbox("bwrap", (tmp_path,)).argv(["true"], room=room)
    assert argv[-7:-4] == ["--bind", f"{room}.sock", f"{room}.sock"]
    assert argv[-4:] == ["--chdir", str(room), "--", "true"]
