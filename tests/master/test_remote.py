"""A job on a member, as the master reads it."""

from __future__ import annotations

from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import trio
import trio.testing

from aemesh import limits
from aemesh.master.activity import Activity
from aemesh.master.remote import RemoteJob
from aemesh.model.job import Channel, Chunk, JobExit
from aemesh.model.names import JobId
from aemesh.protocol.streams import encode_chunk, encode_exit
from tests.turns import Turns


def remote_job(said: bytes) -> RemoteJob:
    """Return a job of a worker that said this in one piece."""
    stream, _ = trio.testing.memory_stream_pair()
    channel: Any = SimpleNamespace(
        stream=stream, connection=SimpleNamespace(stream=stream)
    )
    member: Any = SimpleNamespace(
        name="office-1", asked=None, spawn=None, activity=Activity(), running=set()
    )
    return RemoteJob(channel, JobId("one"), member, said)


async def test_a_worker_that_says_much_in_little_lets_others_have_their_turn() -> None:
    frame = encode_chunk(Chunk(Channel.STDOUT, b"x"))
    job = remote_job(frame * 5000 + encode_exit(JobExit(0)))
    with Turns.watched() as turns:
        async with aclosing(job.output()) as output:
            async for _ in output:
                turns.count()

    assert turns.total == 5000
    assert turns.most <= limits.ITEMS_A_TURN


async def test_chunks_of_nothing_are_passed_over() -> None:
    nothing = encode_chunk(Chunk(Channel.STDOUT, b""))
    something = Chunk(Channel.STDERR, b"x")
    job = remote_job(nothing + encode_chunk(something) + encode_exit(JobExit(3)))

    assert [chunk async for chunk in job.output()] == [something]
    assert await job.wait() == JobExit(3)
