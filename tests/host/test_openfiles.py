"""An agent may have all the files that there are; its jobs have the usual number."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.cli import start
from aemesh.host.jobs import open_jobs
from aemesh.host.openfiles import give_usual, take_files
from aemesh.host.sandbox import find_sandbox
from aemesh.model.job import JobSpec
from aemesh.model.names import JobId
from tests.files import few_files

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.host.localjob import LocalJob

FILES = resource.RLIMIT_NOFILE
ONE = JobId("one")
# It forks before it is told anything, and both look when they are told.
LOOK = (
    "mkfifo told; (read line < told; ulimit -Sn) & echo up; "
    "read line; ulimit -Sn; echo > told; wait"
)


async def limits_of(job: LocalJob) -> list[int]:
    """Return what a job that runs `LOOK` may have open, and what it forked."""
    said = b""
    async for chunk in job.output():
        if not said:
            await job.send(b"look\n")
        said += chunk.data
    return [int(word) for word in said.split()[1:]]


@pytest.mark.parametrize("role", ["master", "worker", "keeper"])
def test_each_agent_takes_all_files_at_its_start(
    role: str, monkeypatch: pytest.MonkeyPatch
):
    seen: list[int] = []
    for name in ("MasterOptions", "WorkerOptions", "KeeperOptions"):
        monkeypatch.setattr(start, name, dict)

    def run(*_args: object, **_words: object) -> int:
        seen.append(resource.getrlimit(FILES)[0])
        return 0

    monkeypatch.setattr(start, "_run_held", run)
    with few_files(left=50):
        assert start.run_agent(role, {}) == 0

    assert seen == [resource.getrlimit(FILES)[1]]


@pytest.mark.parametrize("kind", ["none", "bwrap"])
@pytest.mark.parametrize("spare", [False, True])
async def test_a_job_has_the_usual_number_and_so_has_what_it_forked(
    kind: str, spare: bool, tmp_path: Path
):
    """Programs that use select(2) break with more files than it can name."""
    if kind == "bwrap" and not shutil.which(kind):
        pytest.skip("no bubblewrap here")
    sandbox = find_sandbox(kind, state=tmp_path)
    spec = JobSpec(argv=("sh", "-c", LOOK))
    with few_files(left=50) as few, trio.fail_after(30):
        take_files()
        async with open_jobs(tmp_path / "run", sandbox=sandbox) as jobs:
            if spare:
                await jobs.start_spare(spec)
            job = await jobs.start(ONE, spec)
            assert await limits_of(job) == [few, few]


def test_what_a_process_forked_before_has_the_usual_number_too():
    forks = "(sh -c 'echo $$; exec sleep 1000'; true) & echo $$; wait"
    with few_files(left=50) as few:
        take_files()
        argv = ["setsid", "sh", "-c", forks]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
            both = [int(child.stdout.readline()) for _ in range(2)]
            most = resource.prlimit(child.pid, FILES)[1]
            assert {resource.prlimit(pid, FILES) for pid in both} == {(most, most)}

            give_usual(child.pid)

            assert {resource.prlimit(pid, FILES) for pid in both} == {(few, most)}
            os.killpg(child.pid, signal.SIGKILL)


def test_a_process_that_is_gone_is_given_nothing():
    with few_files(left=50), subprocess.Popen(["true"]) as child:
        take_files()
        child.wait()

        give_usual(child.pid)

        usual, most = resource.getrlimit(FILES)
        assert usual == most  # ours are not given away in its place
