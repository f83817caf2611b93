"""One job on one member, carried between a client and the worker while it runs.

The request's body is frames: first the JSON of a `RunJob`, then the job's input, as
`aemesh.protocol.streams` has it.  The answer is the same way round: output and error
output, and the exit last.  What goes wrong before the job runs is answered as any other
request; then the client has the exit's reason.

There is no buffer: a job that does not read makes the client wait in its write, and a
client that does not read makes the job wait in its own.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import msgspec
import trio

from aemesh import errors, limits
from aemesh.errors import BadMessage, UnreachableError, UsageError
from aemesh.master.control_wire import RunJob
from aemesh.model.job import Channel, Chunk
from aemesh.protocol.frames import FrameReader
from aemesh.protocol.streams import StreamReader, encode_chunk, encode_exit
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from aemesh.host.control.duplex import Exchange
    from aemesh.plugin import Job

MEDIA_FRAMES = "application/vnd.aemesh.job"


async def read_order(exchange: Exchange) -> tuple[RunJob, bytes]:
    """Return what is to run, and the bytes that came behind it.

    Raises `UsageError` for what cannot be read.
    """
    frames = FrameReader(limit=limits.CONTROL_BODY_BYTES)
    try:
        while (frame := frames.next_untrusted()) is None:
            data = await exchange.read()
            if not data:
                msg = "the request ends before it says what is to run"
                raise UsageError(msg)
            frames.receive_untrusted(data)
        return msgspec.json.decode(frame, type=RunJob), frames.leftover()
    except (BadMessage, msgspec.MsgspecError, ValueError, RecursionError) as error:
        msg = "the request cannot be read"
        raise UsageError(msg, why=errors.quoted(str(error))) from None


async def carry(job: Job, exchange: Exchange, early: bytes) -> None:
    """Pass input and output on until the job is over; end it if that is cut short."""
    whole = False
    try:
        await exchange.begin(MEDIA_FRAMES)
        async with open_crew() as crew:
            crew.start_soon(_pass_input, job, exchange, early)
            async with aclosing(job.output()) as output:
                async for chunk in output:
                    await exchange.write(encode_chunk(chunk))
            exit_ = await job.wait()
            whole = True
            await exchange.write(encode_exit(exit_))
            await exchange.finish()
            crew.cancel_scope.cancel()
    finally:
        if not whole:
            with trio.CancelScope(shield=True):  # bounded by TERM_AFTER
                await job.end(term_after=limits.TERM_AFTER)


async def _pass_input(job: Job, exchange: Exchange, early: bytes) -> None:
    """Give the job its input; the end of the request is the end of it, too."""
    reader, data, open_ = StreamReader(), early, True
    while True:
        for item in reader.receive_untrusted(data):
            if not isinstance(item, Chunk) or item.channel is not Channel.STDIN:
                msg = "expected input for the job"
                raise BadMessage(msg)
            # A job that has ended takes none; the rest is read for the sake of the
            # connection, which is not to break before the exit was told.
            open_ = open_ and await _give(job, item.data)
        data = await exchange.read()
        if not data:
            break
    if open_:
        await _give(job, b"")


async def _give(job: Job, data: bytes) -> bool:
    """Return whether the job may take more."""
    try:
        if data:
            await job.send(data)
        else:
            await job.close_input()
    except UnreachableError:
        return False
    return bool(data)
