"""A link: the established channel of two nodes, with requests, answers and beats.

`open_link` is the one way to have one.  Inside its block a reader and a pulse run;
when the peer says bye, falls silent or breaks the protocol, `wait_closed` returns and
every open request raises `UnreachableError`.  The block itself goes on until its body
ends, so that the owner can still look at the link it lost.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import trio

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    BusyError,
    RequestFailedError,
    UnreachableError,
    quoted,
)
from aemesh.net.outbox import Outbox
from aemesh.protocol import wire
from aemesh.protocol.session import (
    Answer,
    Notice,
    Pulse,
    Request,
    Session,
    SessionEvent,
)
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from aemesh.model.trust import Peer
    from aemesh.net.shake import Channel

_log = logging.getLogger(__name__)
_CLOSE_AFTER = 0.5
B = TypeVar("B", bound=wire.Body)

# Answers a request; for a notice the answer is thrown away.
Handle = Callable[["Link", wire.Body], Awaitable[wire.Body | None]]


class Ending(enum.Enum):
    """How a link ended."""

    BYE = "said good-bye"
    CLOSED = "closed the connection"
    SILENT = "fell silent"
    BROKE_PROTOCOL = "broke the protocol"
    OURS = "was let go"


@dataclass(frozen=True, slots=True)
class Closed:
    """How a link ended, with a sentence for people."""

    ending: Ending
    detail: str = ""

    def __str__(self) -> str:
        return self.ending.value + (f", {self.detail}" if self.detail else "")


class Link:
    """One end of a link; made by `open_link`."""

    def __init__(self, channel: Channel, handle: Handle) -> None:
        self.peer: Peer = channel.peer
        self.binding = channel.binding
        self.connection = channel.connection
        self.dialled = channel.dialled  # by us
        self.pulse = Pulse.ALIVE
        self.closed: Closed | None = None
        self._stream = channel.stream
        self._leftover = channel.leftover
        self._handle = handle
        self._session = Session(
            now=trio.current_time(), lost_after=channel.connection.lost_after
        )
        self._outbox = Outbox(channel.stream)
        self._answers: dict[int, wire.Body] = {}
        self._waiting: dict[int, trio.Event] = {}
        self._ended = trio.Event()
        self._in_flight = 0
        self._due = trio.Event()
        self._pulse_changed = trio.Event()

    def __repr__(self) -> str:
        state = self.closed.ending.value if self.closed else self.pulse.value
        return f"<Link to {self.peer.name} at {self.connection.remote}: {state}>"

    @property
    def heard_at(self) -> float:
        """When the peer was heard last, on trio's clock."""
        return self._session.heard_at

    async def request(self, body: wire.Body, kind: type[B]) -> B:
        """Ask, and return the answer of type `kind`.

        Raises `UnreachableError` when the link ends first, `RequestFailedError` when
        the peer answers that it could not be done, `BusyError` if it can be later.
        Callers own the timeout; an answer that comes after it is thrown away.
        """
        number, data = self._session.request(body, trio.current_time())
        self._waiting[number] = trio.Event()
        try:
            await self._send(data)
            await self._waiting[number].wait()
            return self._answer(number, kind)
        finally:
            self._waiting.pop(number, None)
            self._answers.pop(number, None)

    async def tell(self, body: wire.Body) -> None:
        """Say something that needs no answer; raises `UnreachableError`."""
        await self._send(self._session.notice(body, trio.current_time()))

    async def wait_closed(self) -> Closed:
        """Wait until the link ended, and return how."""
        await self._ended.wait()
        assert self.closed is not None
        return self.closed

    async def wait_pulse_change(self) -> Pulse:
        """Wait until the peer becomes suspect, or is heard again."""
        await self._pulse_changed.wait()
        return self.pulse

    def close(self, reason: str = "") -> None:
        """End the link from this side, at once."""
        self._end(Closed(Ending.OURS, reason))

    def abandon(self, why: str) -> None:
        """End the link as if the line had broken: the peer hears no good-bye."""
        self._end(Closed(Ending.CLOSED, why))

    def _answer(self, number: int, kind: type[B]) -> B:
        body = self._answers.get(number)
        match body:
            case None:
                raise self._gone()
            case wire.Failed():
                msg = f"{self.peer.name} could not do it"
                busy = body.error == BusyError.name
                kind_of = BusyError if busy else RequestFailedError
                raise kind_of(msg, why=quoted(body.what))
            case wire.Unsupported():
                msg = f"{self.peer.name} does not know {quoted(body.what)}"
                raise RequestFailedError(
                    msg,
                    hint=f"update aemesh on {self.peer.name}",
                )
            case _ if isinstance(body, kind):
                return body
        msg = f"{self.peer.name} answered {type(body).__name__}, not {kind.__name__}"
        self._end(Closed(Ending.BROKE_PROTOCOL, msg))
        raise BadMessage(msg)

    def _gone(self) -> UnreachableError:
        closed = self.closed or Closed(Ending.CLOSED)
        why = closed.ending.value + (f" ({closed.detail})" if closed.detail else "")
        return UnreachableError(f"the link to {self.peer.name} ended", why=why)

    def _end(self, closed: Closed) -> None:
        if self.closed is not None:
            return
        self.closed = closed
        self._ended.set()
        for event in self._waiting.values():
            event.set()
        # A peer that does not read holds no sender of ours for longer.
        patience = _CLOSE_AFTER if closed.ending is Ending.OURS else 0.0
        self._outbox.close(patience=patience)

    async def _send(self, data: bytes) -> None:
        """Send a whole frame; raises `UnreachableError` when the link ends first."""
        if not await self._outbox.send(data):
            raise self._gone()

    async def write(self) -> None:
        """Write what is sent until the link ends."""
        try:
            await self._outbox.run()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end(Closed(Ending.CLOSED))
        except trio.TooSlowError:
            detail = f"it did not read for {limits.FRAME_AFTER:g} s"
            self._end(Closed(Ending.SILENT, detail))

    async def run(self, crew: trio.Nursery) -> None:
        """Read until the link ends; requests of the peer run in `crew`."""
        try:
            await self._read(crew)
        except BadMessage as exc:
            self._end(Closed(Ending.BROKE_PROTOCOL, str(exc)))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._end(Closed(Ending.CLOSED))

    async def _read(self, crew: trio.Nursery) -> None:
        data = self._leftover
        while self.closed is None:
            now = trio.current_time()
            for event in self._session.receive_untrusted(data, now):
                await self._take(event, crew)
            self._note_pulse()
            self._due.set()
            data = bytes(await self._stream.receive_some(limits.CHUNK_BYTES))
            if not data:
                self._end(Closed(Ending.CLOSED))

    async def _take(self, event: SessionEvent, crew: trio.Nursery) -> None:
        if self.closed is not None:
            return  # what comes behind a good-bye is not done
        match event:
            case Answer(number, body):
                if number in self._waiting:
                    self._answers[number] = body
                    self._waiting[number].set()
            case Notice(wire.Bye(reason=reason)):
                self._end(Closed(Ending.BYE, quoted(reason) if reason else ""))
            case Request() | Notice() if self._in_flight >= limits.REQUESTS_IN_FLIGHT:
                # Said by the reader itself: who does not take it is not read further.
                busy = wire.Failed(error=BusyError.name, what="busy")
                await self._answer_peer(event, busy)
            case Request() | Notice():
                self._in_flight += 1
                crew.start_soon(self._serve, event)

    async def _serve(self, event: Request | Notice) -> None:
        """Let the owner handle one message; its errors are answers, not our end."""
        answer: wire.Body | None
        try:
            answer = await self._handle(self, event.body)
        except AemeshError as exc:
            answer = wire.Failed(error=exc.name, what=str(exc)[:1000])
        except Exception:  # noqa: BLE001 - an owner's bug is an answer, not our end
            name = wire.NAMES[type(event.body)]
            _log.exception("a message %s was not handled", name)
            answer = wire.Failed(error="ours/bug", what="a bug; see the log there")
        await self._answer_peer(event, answer)
        self._in_flight -= 1  # not before: an answer that is not taken is held, too

    async def _answer_peer(
        self, event: Request | Notice, answer: wire.Body | None
    ) -> None:
        if isinstance(event, Request) and answer is not None:
            await self._send_quietly(
                self._session.answer(event.number, answer, trio.current_time())
            )

    async def watch_pulse(self) -> None:
        """End the link when the peer falls silent; never waits for the line."""
        while self.closed is None:
            pulse = self._session.tick(trio.current_time())
            self._note_pulse()
            self._due.set()
            if pulse is Pulse.LOST:
                detail = f"nothing was heard for {self.connection.lost_after:g} s"
                self._end(Closed(Ending.SILENT, detail))
                return
            await trio.sleep_until(self._session.wake_at())

    async def send_due(self) -> None:
        """Send what the session itself wants to say: beats, "unsupported"."""
        while self.closed is None:
            await self._due.wait()
            self._due = trio.Event()
            data = self._session.unsent()
            if data:
                await self._send_quietly(data)

    async def _send_quietly(self, data: bytes) -> None:
        with suppress(UnreachableError):
            await self._send(data)

    def _note_pulse(self) -> None:
        if self._session.pulse is not self.pulse:
            self.pulse = self._session.pulse
            self._pulse_changed.set()
            self._pulse_changed = trio.Event()

    async def shut(self) -> None:
        """Say good-bye if we may, and close; short and shielded."""
        self._end(Closed(Ending.OURS))
        assert self.closed is not None
        with trio.move_on_after(_CLOSE_AFTER, shield=True):
            try:
                if self.closed.ending is Ending.OURS:
                    await self._say_bye(self.closed.detail)
                await self._stream.aclose()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
        await trio.aclose_forcefully(self.connection.stream)

    async def _say_bye(self, reason: str) -> None:
        bye = wire.Bye(reason=reason[:1000])
        data = self._session.notice(bye, trio.current_time())
        await self._outbox.ended.wait()
        await self._stream.send_all(data)


@asynccontextmanager
async def open_link(channel: Channel, handle: Handle) -> AsyncIterator[Link]:
    """Run a link over `channel` while the block lasts; then say good-bye and close."""
    link = Link(channel, handle)
    async with open_crew() as crew:
        crew.start_soon(link.run, crew)
        crew.start_soon(link.write)
        crew.start_soon(link.watch_pulse)
        crew.start_soon(link.send_due)
        try:
            yield link
        finally:
            await link.shut()
            crew.cancel_scope.cancel()
