"""A job's two output pipes, read when somebody asks, as one stream of chunks.

The problem: a job may write gigabytes.  Tasks that read ahead into a queue hold
what nobody takes.  Here nothing reads ahead: the kernel's pipe is the only buffer,
and when it is full the job waits.
"""

from __future__ import annotations

import os
import select

import trio

from aemesh import limits
from aemesh.model.job import Channel, Chunk


class JobOutput:
    """Iterates over the chunks of both pipes, for one reader, one chunk at a time."""

    def __init__(self) -> None:
        self._channels: dict[int, Channel] = {}
        self._closed = True  # until there is something to close
        # Readable once the job is over: a pipe may then still be held open by a
        # process that got away, and its end would never come.
        self._over = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            # Both pipes behind one epoll, so that one task can wait for either.
            self._epoll = select.epoll()
        except OSError:
            os.close(self._over)
            raise
        self._closed = False
        self._epoll.register(self._over, select.EPOLLIN)

    def pipe(self, channel: Channel) -> int:
        """Make the pipe of a channel; return the end for the job, to be closed."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._epoll.register(reading, select.EPOLLIN)
        self._channels[reading] = channel
        return writing

    async def wait_said(self) -> None:
        """Wait until there is standard output, or its end; leave it there."""
        found = [fd for fd, one in self._channels.items() if one is Channel.STDOUT]
        if not found:
            return
        # Of our own: whoever reads the output may wait at the same time.
        fd = os.dup(found[0])
        try:
            await trio.lowlevel.wait_readable(fd)
        finally:
            os.close(fd)

    def finish(self) -> None:
        """Say that the job is over: what is in the pipes now is the rest."""
        if not self._closed:
            os.eventfd_write(self._over, 1)

    def close(self) -> None:
        """Close the pipes: a job that still writes gets SIGPIPE."""
        if not self._closed:
            self._closed = True
            for fd in (*self._channels, self._over):
                os.close(fd)
            self._channels.clear()
            self._epoll.close()

    async def aclose(self) -> None:
        """Close the pipes; never waits.  A reader that waits gets an error."""
        if not self._closed:
            trio.lowlevel.notify_closing(self._epoll.fileno())
            self.close()

    def __aiter__(self) -> JobOutput:
        return self

    async def __anext__(self) -> Chunk:
        while self._channels:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            chunk = self._read_nowait()
            if chunk is not None:
                return chunk
        self.close()
        raise StopAsyncIteration

    def _read_nowait(self) -> Chunk | None:
        ready = {fd for fd, _ in self._epoll.poll(0)}
        for fd, channel in list(self._channels.items()):
            if fd not in ready and self._over not in ready:
                continue
            data = self._read(fd)
            del self._channels[fd]
            if data:
                self._channels[fd] = channel  # last now: the other one is next
                return Chunk(channel, data)
            self._epoll.unregister(fd)
            os.close(fd)
        return None

    @staticmethod
    def _read(fd: int) -> bytes:
        try:
            return os.read(fd, limits.CHUNK_BYTES)
        except BlockingIOError:  # nothing there, and the job is over
            return b""

    def __repr__(self) -> str:
        names = [channel.name for channel in self._channels.values()]
        return f"JobOutput({', '.join(names) or 'at its end'})"

    def __del__(self) -> None:
        self.close()
