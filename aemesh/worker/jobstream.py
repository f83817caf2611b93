"""One job's stream: its output goes out, its input comes in, its exit ends it.

Nothing is kept here but the chunk in hand: a master that does not read fills TCP,
and the job waits in its write.  A job lives no longer than its stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BadMessage, UnreachableError
from aemesh.model.job import Channel, Chunk
from aemesh.protocol.streams import StreamReader, encode_chunk, encode_exit

if TYPE_CHECKING:
    from aemesh.plugin import Job


async def carry(job: Job, stream: trio.abc.Stream, early: bytes) -> None:
    """Carry a job's input and output over `stream` until the job has ended.

    `early` are bytes that were read already.  When the master closes the stream, the
    job is ended.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_take_input, job, stream, early, nursery.cancel_scope)
        try:
            async for chunk in job.output():
                await stream.send_all(encode_chunk(chunk))
            await stream.send_all(encode_exit(await job.wait()))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):  # bounded by TERM_AFTER and SIGKILL
        await job.end(term_after=limits.TERM_AFTER)


async def _take_input(
    job: Job, stream: trio.abc.Stream, early: bytes, scope: trio.CancelScope
) -> None:
    reader = StreamReader()
    data = early
    try:
        while True:
            for item in reader.receive_untrusted(data):
                await _take(job, item)
            data = bytes(await stream.receive_some(limits.CHUNK_BYTES))
            if not data:
                break
    except (BadMessage, trio.BrokenResourceError, trio.ClosedResourceError):
        pass
    scope.cancel()


async def _take(job: Job, item: object) -> None:
    if not isinstance(item, Chunk) or item.channel is not Channel.STDIN:
        msg = "expected input for the job"
        raise BadMessage(msg)
    try:
        if item.data:
            await job.send(item.data)
        else:
            await job.close_input()
    except UnreachableError:
        pass  # it has ended; its exit is on the way
