"""The checks of engines find what is wrong, each by the check that is for it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import aclosing, asynccontextmanager

import pytest
import trio

from aemesh.model.group import Haste, Receipt
from aemesh.model.job import JobSpec
from aemesh.tasks.nursery import open_crew
from aemesh.testing import checks
from aemesh.testing.local_group import open_local_group

NODE = JobSpec(argv=("sleep", "3600"))


class Sleepers:
    """One that does all it owes, unless it is told to have this fault."""

    name = "sleepers"

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    @asynccontextmanager
    async def open(self, group):
        async with open_crew() as crew:
            running = Running(group, crew, self.fault)
            try:
                yield running
            finally:
                crew.cancel_scope.cancel()
                if self.fault != "leaves jobs":
                    shield = self.fault != "is cancelled in its end"
                    with trio.CancelScope(shield=shield):
                        await trio.lowlevel.checkpoint()
                        for job in list(running.jobs.values()):
                            await job.end(term_after=0.5)

    def spare_node(self):
        return JobSpec(argv=("true",)) if self.fault == "keeps others warm" else None

    def spare_head(self):
        return None


class Running:
    def __init__(self, group, crew, fault: str) -> None:
        self.group, self.crew, self.fault = group, crew, fault
        self.jobs, self.names = {}, set()

    async def add(self, member):
        if self.fault == "takes each name once" and member.name in self.names:
            raise ZeroDivisionError
        self.names.add(member.name)
        job = self.jobs[member.label] = await member.start(NODE)
        if self.fault != "looks at no node":
            self.crew.start_soon(self.watch, member, job)

    async def watch(self, member, job):
        async with aclosing(job.output()) as output:
            async for _ in output:
                pass
        if member.label in self.jobs:
            self.group.member_broken(member, "it ended")

    async def retire(self, member, *, by_after, haste=Haste.SOON):
        job = self.jobs.pop(member.label)
        if self.fault != "retires in words":
            await job.end(term_after=0.0)
        else:
            self.jobs[f"former {member.label}"] = job
        name = "nobody" if self.fault == "mistakes members" else member.name
        graceful = self.fault != "cuts off"
        return Receipt(name, self.group.name, graceful=graceful)

    async def lost(self, member):
        if self.fault == "waits for the silent":
            await self.jobs[member.label].wait()
        job = (
            self.jobs.pop(member.label)
            if self.fault == "knows no loss of strangers"
            else self.jobs.pop(member.label, None)
        )
        if job is not None and self.fault != "leaves the silent":
            await job.end(term_after=0.0)

    def connect_info(self):
        return {"NO NAME": "x"} if self.fault == "names no variable" else {}


SERVES = checks.it_opens_serves_and_leaves_nothing
SILENT = checks.a_silent_member_holds_nobody_up
DEAD = checks.a_dead_member_holds_nobody_up
TOLD = checks.a_node_that_dies_is_told
CANCELLED = checks.cancelled_it_leaves_nothing


async def test_one_that_does_all_it_owes_passes(tmp_path) -> None:
    await checks.check_engine(Sleepers(), tmp_path)


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("leaves jobs", SERVES),
        ("retires in words", SERVES),
        ("mistakes members", SERVES),
        ("cuts off", SERVES),
        ("names no variable", SERVES),
        ("keeps others warm", SERVES),
        ("takes each name once", SERVES),
        ("waits for the silent", SILENT),
        ("leaves the silent", SILENT),
        ("knows no loss of strangers", DEAD),
        ("looks at no node", TOLD),
        ("is cancelled in its end", CANCELLED),
    ],
)
async def test_a_broken_engine_fails_the_check_that_is_for_it(
    tmp_path, monkeypatch, fault: str, check
) -> None:
    if check is TOLD:  # it waits for what never comes
        monkeypatch.setattr(checks, "UP_AFTER", 1.0)
    with pytest.raises((Exception, ExceptionGroup)) as caught:
        await checks.run_check(check, Sleepers(fault), tmp_path / "run")
    assert any(check.__name__ in note for note in caught.value.__notes__)


async def test_a_local_group_has_certificates_that_hold(tmp_path) -> None:
    async with open_local_group(tmp_path) as group:
        files = group.certify("office-1.1")
        assert set(files) == {"ca.pem", "cert.pem", "key.pem"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch"], 2, 'error: unknown engine "nosuch": known: '),
        ([], 2, "error: the following arguments are required: NAME"),
        (["--help"], 0, "Hold an installed engine to what engines owe."),
    ],
)
def test_words_that_name_no_engine_are_answered_with_how_to_call_it(
    words: list[str], code: int, said: str
):
    argv = [sys.executable, "-m", "aemesh.testing.checks", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    told = done.stdout + done.stderr
    assert done.returncode == code
    assert told.startswith("usage: python -m aemesh.testing.checks [-h] NAME")
    assert said in told
    assert "Traceback" not in told
