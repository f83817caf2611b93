"""The lines between the Dask engine and its scripts."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import TYPE_CHECKING, cast

import trio
import trio.testing

from aemesh.engines.dask.talk import _LINES_A_TURN, Said, Talk
from aemesh.host.jobs import open_jobs
from aemesh.model.job import Channel, Chunk, JobExit, JobSpec
from aemesh.model.names import JobId
from aemesh.tasks.nursery import open_crew
from tests.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from aemesh.plugin import Job

# Answers each order, and does not survive half of one.
SCRIPT = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"event": "done", "id": json.loads(line)["id"]}), flush=True)
"""


async def test_an_order_whose_sender_is_cancelled_ends_no_engine(tmp_path: Path):
    """Who looked at the dashboard and went took the scheduler with him."""
    async with open_jobs(tmp_path / "run", spares=0) as jobs, open_crew() as crew:
        job = await jobs.start(JobId("one"), JobSpec(argv=("{python}", "-c", SCRIPT)))
        talk = Talk("the script", job)
        crew.start_soon(talk.listen)
        with trio.fail_after(30):
            assert (await talk.ask("first"))["event"] == "done"
            os.kill(job.pid, signal.SIGSTOP)
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    # More than a pipe holds, so that it is cut in its midst.
                    nursery.start_soon(partial(talk.ask, "long", data="x" * 500_000))
                    await trio.testing.wait_all_tasks_blocked()
                    scope.cancel()
                    os.kill(job.pid, signal.SIGCONT)

            assert scope.cancelled_caught
            assert (await talk.ask("next"))["event"] == "done"
            await job.end(term_after=0.0)


class Slow:
    """A job that takes ten bytes, and more from when it is `open`."""

    def __init__(self) -> None:
        self.got = b""
        self.open = trio.Event()

    async def send(self, data: bytes) -> None:
        self.got += data[:10]
        await self.open.wait()
        self.got += data[10:]

    async def wait(self) -> None:
        await trio.sleep_forever()

    async def end(self, *, term_after: float) -> None:
        assert term_after == 0.0


async def test_an_order_that_was_cut_does_not_spoil_the_next(autojump_clock):
    """The script did not read for longer than a cancelled sender stays."""
    job = Slow()
    talk = Talk("the script", cast("Job", job))
    with trio.move_on_after(1) as scope:
        await talk.tell("first")
    assert scope.cancelled_caught

    job.open.set()
    await talk.tell("second")
    await talk.tell("third")

    assert job.got.splitlines()[1:] == [b'{"op": "second"}', b'{"op": "third"}']


async def test_a_script_that_does_not_read_is_ended_in_its_time(autojump_clock):
    talk = Talk("the script", cast("Job", Slow()))
    start = trio.current_time()

    await talk.close()

    assert trio.current_time() - start == 2


class Loud:
    """A job that says all of this at once, and ends."""

    def __init__(self, *said: bytes) -> None:
        self._said = said

    async def output(self) -> AsyncGenerator[Chunk, None]:
        for data in self._said:
            yield Chunk(Channel.STDOUT, data)

    async def wait(self) -> JobExit:
        return JobExit(0)


async def test_a_script_of_many_lines_lets_others_have_their_turn() -> None:
    line = b'{"event": "listening", "port": 1}\n'
    talk = Talk("a rogue", cast("Job", Loud(line * 5000)))
    with Turns.watched() as turns:
        talk.take = lambda _: turns.count()
        await talk.listen()

    assert turns.total == 5000
    assert turns.most <= _LINES_A_TURN


async def test_a_line_is_heard_whole_in_whatever_pieces_it_comes() -> None:
    pieces = (b'{"event": "liste', b"", b'ning", "po', b'rt": 7}\n{"event"')
    talk = Talk("the script", cast("Job", Loud(*pieces)))
    heard: list[Said] = []
    talk.take = heard.append
    await talk.listen()

    assert heard == [{"event": "listening", "port": 7}]
