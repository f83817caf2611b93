"""What a master shows to those who ask from other machines; read-only and bounded.

The control API is a unix socket, for whoever may do all.  This is less: one question
on a connection that both sides have authenticated, and JSON of the same views, as far
as the asker may see them (`aemesh.policy.sight`).
"""

from __future__ import annotations

from collections import Counter
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Protocol

import msgspec
import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    RefusedError,
    UnknownNameError,
    quoted,
)
from aemesh.model.names import GroupName
from aemesh.net.firstword import hear_first
from aemesh.policy.sight import Sight, sight_of
from aemesh.protocol import wire
from aemesh.protocol.frames import encode_frame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator

    from aemesh.model.key import KeyId
    from aemesh.model.trust import Peer, Terms
    from aemesh.model.view import (
        EventView,
        GroupStatusView,
        GroupView,
        StatusView,
        WorkerView,
    )
    from aemesh.net.shake import Channel


class Views(Protocol):
    """What there is to see; a part of `aemesh.master.control.ControlApi`."""

    def status(self) -> StatusView:
        """Return the master with its workers and groups."""

    def workers(self) -> list[WorkerView]:
        """Return every worker."""

    def groups(self) -> list[GroupView]:
        """Return every group."""

    def group_status(self, name: GroupName) -> GroupStatusView:
        """Return all about one group."""

    def events(self, after: int, *, follow: bool) -> AsyncGenerator[EventView, None]:
        """Yield the history beyond number `after`."""


class Trust(Protocol):
    """What is known of an asker; a part of `aemesh.net.doorman.Desk`."""

    def observes(self, peer: Peer) -> bool:
        """Whether a person let this peer observe."""

    def terms_of(self, peer: Peer) -> tuple[Terms, ...]:
        """Return the terms under which a peer is let in."""


class Window:
    """Answers what is asked of one master."""

    def __init__(
        self,
        views: Views,
        trust: Trust,
        *,
        serves: Callable[[KeyId], GroupName | None],
        log: Callable[..., None],
    ) -> None:
        self._views = views
        self._trust = trust
        self._serves = serves
        self._log = log  # at a bounded rate
        self._asking: Counter[KeyId] = Counter()

    def __repr__(self) -> str:
        return f"<Window, {self._asking.total()} asking>"

    async def show(self, channel: Channel) -> None:
        """Answer the one question of a channel, and close it."""
        peer, stream = channel.peer, channel.stream
        try:
            with trio.fail_after(limits.ASK_AFTER):
                try:
                    with self._turn(peer.key_id):
                        await self._talk(channel)
                except AemeshError as exc:
                    failed = wire.Failed(error=exc.name, what=str(exc)[:1000])
                    await stream.send_all(_framed(failed))
                    self._log("a question of %s: %s", peer.name, exc)
                await stream.aclose()
        except (trio.TooSlowError, trio.BrokenResourceError) as exc:
            self._log("a question of %s came to nothing: %r", peer.name, exc)
        finally:
            await trio.aclose_forcefully(channel.connection.stream)

    async def _talk(self, channel: Channel) -> None:
        _, ask, _ = await hear_first(channel, wire.Ask)
        await _send(channel.stream, await self._answer(channel.peer, ask))

    @contextmanager
    def _turn(self, key_id: KeyId) -> Iterator[None]:
        asking = self._asking
        mine = asking[key_id] >= limits.ASKS_OF_ONE
        if mine or asking.total() >= limits.ASKS_AT_ONCE:
            what = "too many ask at one time"
            raise RefusedError(what, hint="ask again")
        asking[key_id] += 1
        try:
            yield
        finally:
            self._asking -= Counter({key_id: 1})  # drops what is zero

    async def _answer(self, peer: Peer, ask: wire.Ask) -> str:
        sight = sight_of(
            observes=self._trust.observes(peer),
            terms=self._trust.terms_of(peer),
            serves=self._serves(peer.key_id),
        )
        if sight is None:
            what = f"{peer.name} may not ask"
            why = "it serves no group here, and its line of trust has no observe=yes"
            raise RefusedError(what, why=why)
        lines = await self._lines(sight, ask)
        text = "\n".join(msgspec.json.encode(line).decode() for line in lines)
        if len(text) > limits.ANSWER_CHARS:
            what = "there is too much to tell"
            raise RefusedError(what, why=f"{len(text)} characters")
        return text

    async def _lines(
        self, sight: Sight, ask: wire.Ask
    ) -> (
        list[StatusView]
        | list[WorkerView]
        | list[GroupView]
        | list[GroupStatusView]
        | list[EventView]
    ):
        match ask.what:
            case "status":
                return [sight.status(self._views.status())]
            case "workers":
                return sight.workers(self._views.workers())
            case "groups":
                return sight.groups(self._views.groups())
            case "group":
                return [sight.group(self._views.group_status(self._seen(sight, ask)))]
            case "events":
                return await self._events(sight, ask.after)
        what = f"{quoted(ask.what)} is nothing to ask for"
        raise RefusedError(what)

    def _seen(self, sight: Sight, ask: wire.Ask) -> GroupName:
        """Return the group's name; one that is hidden is not there."""
        seen = [GroupName(one.name) for one in sight.groups(self._views.groups())]
        if ask.group not in seen:
            msg = "group"
            raise UnknownNameError(msg, ask.group, sorted(seen))
        return GroupName(ask.group)

    async def _events(self, sight: Sight, after: int) -> list[EventView]:
        found: list[EventView] = []
        async with aclosing(self._views.events(after, follow=False)) as events:
            async for event in events:
                found += sight.events([event])
                if len(found) >= limits.EVENTS_ANSWERED:
                    break
        return found


async def _send(stream: trio.abc.Stream, text: str) -> None:
    """Send a text in pages; the last one says so."""
    page = limits.ANSWER_PAGE_CHARS
    starts = range(0, max(len(text), 1), page)
    for start in starts:
        body = wire.Told(text=text[start : start + page], more=start != starts[-1])
        await stream.send_all(_framed(body))


def _framed(body: wire.Body) -> bytes:
    return encode_frame(wire.encode(body, re=1), limit=limits.FRAME_BYTES)
