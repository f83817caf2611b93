"""Streams that workers dial because the master asked for them.

Whoever dialled the link dials its streams: of a link that a worker dialled, nobody
knows whether the worker lets anybody in.  So the master asks over the link for a
connection, with an id that cannot be guessed, and the worker says it first on what it
dials.  A worker can only bring what was asked of itself, and each id once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BadMessage, UnreachableError
from aemesh.master.remote import ask
from aemesh.model.key import KeyId
from aemesh.net.firstword import hear_first
from aemesh.net.shake import Channel
from aemesh.protocol import wire

if TYPE_CHECKING:
    from aemesh.net.link import Link


@dataclass(slots=True, eq=False)
class _Call:
    """A stream that was asked of one worker."""

    worker: KeyId
    came: trio.Event = field(default_factory=trio.Event)
    channel: Channel | None = None


class Callbacks:
    """The streams that were asked for and have not come; one for each master."""

    def __init__(self) -> None:
        self._calls: dict[str, _Call] = {}  # as many as requests wait for an answer

    def __repr__(self) -> str:
        return f"<Callbacks {len(self._calls)} waited for>"

    async def call(self, link: Link) -> Channel:
        """Have the worker of a link dial a stream; raises as `ask`, or if none comes.

        The channel is then the caller's to close.
        """
        number = secrets.token_hex(16)
        call = self._calls[number] = _Call(link.peer.key_id)
        try:
            body = wire.Dial(id=number)
            await ask(link, body, wire.Done, within=limits.ANSWER_AFTER)
            with trio.move_on_after(limits.HELLO_AFTER):
                await call.came.wait()
            channel, call.channel = call.channel, None
        finally:
            del self._calls[number]
            if call.channel is not None:  # it came, and nobody waits for it any more
                await trio.aclose_forcefully(call.channel.connection.stream)
        if channel is None:
            msg = f"{link.peer.name} dialled no stream"
            raise UnreachableError(msg, why="none came with the id that it was given")
        return channel

    async def take(self, channel: Channel) -> None:
        """Hand a stream that came in to whoever asked for it; else close it."""
        try:
            with trio.fail_after(limits.HELLO_AFTER):
                _, said, early = await hear_first(channel, wire.Dialled)
                number = said.id
        except (BadMessage, trio.TooSlowError, trio.BrokenResourceError):
            number, early = "", b""
        call = self._calls.get(number)
        if call is None or call.came.is_set() or call.worker != channel.peer.key_id:
            await trio.aclose_forcefully(channel.connection.stream)
            return
        call.channel = replace(channel, leftover=early)
        call.came.set()
