"""Many jobs that end at once cost few looks at the process table, none in the loop."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from aemesh import limits
from aemesh.errors import EngineError, quoted
from aemesh.host import jobtree, reaper
from aemesh.host.jobs import open_jobs
from aemesh.host.jobtree import JobTree, find_members
from aemesh.host.processes import Process, all_processes, kill, read_process
from aemesh.host.reaper import Reaper
from aemesh.model.job import JobSpec
from aemesh.model.names import JobId
from tests.files import no_files, open_now

if TYPE_CHECKING:
    from pathlib import Path

JOBS = 12


class Looks:
    """Counts the looks at the process table; each waits until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        self.may = threading.Event()
        monkeypatch.setattr(jobtree, "all_processes", self._look)

    def _look(self) -> dict[int, Process]:
        self.threads.append(threading.get_ident())
        assert self.may.wait(20)
        return all_processes()


async def test_jobs_that_end_during_a_look_share_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    looks = Looks(monkeypatch)
    with trio.fail_after(30):
        async with open_jobs(tmp_path / "run", spares=0) as jobs:
            all_ = [
                await jobs.start(JobId(f"j{number}"), JobSpec(argv=("sleep", "1000")))
                for number in range(JOBS)
            ]

            jobs.end_all(term_after=2, reason="released")

            # The loop goes on meanwhile, or this would hang.
            while any(job.running for job in all_):
                await trio.sleep(0.001)
            await trio.testing.wait_all_tasks_blocked()
            looks.may.set()
            for job in all_:
                await job.wait()

    assert 1 <= len(looks.threads) <= 2
    assert threading.get_ident() not in looks.threads


def test_what_is_no_leaders_is_looked_at_once_for_all_trees(
    monkeypatch: pytest.MonkeyPatch,
):
    """An exec is waited for once in a look, too."""
    looked: list[int] = []

    def environment(process: Process, *, again: bool) -> bytes | None:
        looked.append(process.pid)
        return None if process.pid == 70 and not again else marks[process.pid]

    monkeypatch.setattr(jobtree, "_environment", environment)
    trees = [JobTree(pid, 100, f"mark.{pid}") for pid in (10, 20, 30)]
    marks = {
        50: b"A=1\0AEMESH_TREE=mark.20\0",
        51: b"",
        60: b"",
        70: b"AEMESH_TREE=mark.30\0B=2\0",
        80: b"AEMESH_TREE=mark.3\0",
    }
    table = {
        one.pid: one
        for one in (
            Process(10, "S", 1, 10, 10, 100),
            Process(11, "S", 10, 11, 11, 101),
            Process(20, "S", 1, 20, 20, 99),  # an older one: the leader is gone
            Process(31, "S", 1, 30, 30, 103),
            Process(50, "S", 1, 50, 50, 104),
            Process(51, "S", 50, 51, 51, 104),
            Process(60, "S", 1, 60, 60, 104),
            Process(70, "S", 1, 70, 70, 104),
            Process(80, "S", 1, 80, 80, 104),
        )
    }

    found = find_members(trees, table)

    pids = [[one.pid for one in found[tree]] for tree in trees]
    assert pids == [[10, 11], [50, 51], [31, 70]]
    assert sorted(looked) == [50, 51, 60, 70, 70, 80]


async def test_without_a_file_to_look_with_no_process_is_taken_for_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    """Threat: T5: a job that takes all files cannot outlive its end by that."""
    looks = Looks(monkeypatch)
    script = "setsid sh -c 'echo $$; exec sleep 1000' & read line"
    with trio.fail_after(30):
        async with open_jobs(tmp_path / "run", spares=0) as jobs:
            job = await jobs.start(JobId("one"), JobSpec(argv=("sh", "-c", script)))
            child = read_process(int((await anext(job.output())).data))
            assert child is not None
            job.end_nowait(term_after=0)
            while job.running or not looks.threads:  # until it looks what is left
                await trio.sleep(0.001)
            with no_files():
                looks.may.set()
                while not caplog.records:
                    await trio.sleep(0.001)
                assert job.exit_now is None
                with pytest.raises(OSError, match="Too many open files"):
                    read_process(child.pid)
                with pytest.raises(OSError, match="Too many open files"):
                    kill(child)

            await job.wait()

            now = read_process(child.pid)
            assert now is None or not now.alive
    (record,) = caplog.records
    assert "jobs cannot be looked for: [Errno 24]" in record.getMessage()


@pytest.mark.parametrize("left", range(14))
async def test_a_job_that_lacks_files_to_start_with_leaves_none_open(
    tmp_path: Path, left: int
):
    quoted("")  # Python reads its codec then
    before = open_now()
    async with open_jobs(tmp_path / "run", spares=0) as jobs:
        with no_files(but=left), suppress(EngineError):
            job = await jobs.start(JobId("one"), JobSpec(argv=("true",)))
            await job.output().aclose()

    assert open_now() == before


async def test_what_cannot_be_ended_is_named_and_looked_for_ever_less_often(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
):
    tree, stays = JobTree(10, 100, "mark"), Process(10, "D", 1, 10, 10, 100)
    looks: list[float] = []

    async def look(trees: list[JobTree]) -> dict[JobTree, list[Process]]:
        looks.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        return {each: [stays] for each in trees}

    one = Reaper()
    monkeypatch.setattr(one._looks, "_do", look)

    assert await one.end(tree) == [10]
    assert limits.GONE_AFTER / reaper._LOOK_AT_LEAST_EVERY < len(looks) < 80
