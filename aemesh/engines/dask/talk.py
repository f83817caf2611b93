"""JSON lines with a script of Dask's: orders, answers, its end, and how it ended.

A member's script is a program on a machine that may be rogue.  Of each of its lines we
take the fields that are of the right type, and pass over the rest.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, TypedDict, cast

import trio

from aemesh.engines.dask.lines import LineReader
from aemesh.errors import AemeshError, EngineError, quoted
from aemesh.model.job import Channel
from aemesh.tasks.whole import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aemesh.model.job import JobExit
    from aemesh.plugin import Job

_log = logging.getLogger(__name__)

# A line of the scripts' is an event with a few names; more is not from them.
_LINE_BYTES = 1024 * 1024
# Lines of one script before all others have a turn: a chunk may hold 65 000 of them.
_LINES_A_TURN = 64
# The last words of a process that ended badly, for its error message; a longer line is
# several.
_LAST_WORDS = 5
_WORDS_BYTES = 4096
_SHOWN_BYTES = 100
# From "close" to SIGTERM to SIGKILL; the scripts themselves take at most 1.5 s.
_CLOSE_AFTER = 2.0
# A line that was begun is said to its end, also by who is cancelled: the next one's
# sender, and so the engine, would meet its half.
_WHOLE_AFTER = 2.0
# Where a job finds its certificate, in its own folder.
_TLS = {"ca": "tls/ca.pem", "cert": "tls/cert.pem", "key": "tls/key.pem"}


class Said(TypedDict, total=False):
    """One line of a script's; which fields it has depends on `event`."""

    event: str
    id: int
    port: int
    page: int
    data: str
    address: str
    name: str
    message: str
    reason: str
    code: int
    moved: int
    moved_bytes: int
    finished: int
    lost: int
    restarted: int
    pieces: int
    bytes: int
    needs: float
    fits: bool
    moving: bool
    running: int
    workers: list[str]
    refused: list[str]
    doors: dict[str, str]
    members: dict[str, object]


# What each field of a line must be.
_FIELDS = {
    **dict.fromkeys(("id", "port", "page", "code", "pieces", "bytes", "running"), int),
    **dict.fromkeys(("moved", "moved_bytes", "finished", "lost", "restarted"), int),
    **dict.fromkeys(("fits", "moving"), bool),
    "needs": float,
    **dict.fromkeys(("event", "address", "name", "message", "reason", "data"), str),
    **dict.fromkeys(("workers", "refused"), list),
    **dict.fromkeys(("members", "doors"), dict),
}
# Lines of one script that come to the log or the history in a minute: a job that says
# nonsense without end would fill both, and stop everything else meanwhile.
_TOLD_PER_MINUTE = 30


class Talk:
    """JSON lines with one script: what we ask, what it answers, how it ends."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.closing = False
        self.died = False
        self.ended = trio.Event()
        self.take: Callable[[Said], None] = _ignore  # what is no answer comes here
        self._job = job
        self._exit: JobExit | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, Said] = {}
        self._asked: set[int] = set()
        self._told = 0  # since `_told_at`
        self._told_at = float("-inf")
        self._opened: Said | None = None
        self._news = trio.Event()
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._sending = trio.Lock()  # long lines travel in pieces
        self._is_cut = False  # the line before the next one

    def __repr__(self) -> str:
        state = "ended" if self.ended.is_set() else "running"
        return f"<Talk with {self.name}: {state}>"

    async def open(self, settings: Mapping[str, object]) -> Said:
        """Give the script its settings; return what it says when it is up."""
        await self._send({"op": "open", "tls": _TLS, "config": {}, **settings})
        return await self._wait_opened()

    async def _wait_opened(self) -> Said:
        while self._opened is None:
            await self._wait_news()
        if self._opened["event"] == "unopened":
            msg = f"{self.name} was never opened"
            raise EngineError(msg)
        return self._opened

    async def resume(self) -> Said:
        """Have a script that was opened by a former master say again that it is up.

        What that one wrote last may be half a line.
        """
        self._is_cut = True
        await self._send({"op": "report"})
        return await self._wait_opened()

    async def ask(self, op: str, **fields: object) -> Said:
        """Send an order, and return the answer; raises `EngineError`."""
        number = next(self._numbers)
        self._asked.add(number)
        try:
            await self._send({"op": op, "id": number, **fields})
            while number not in self._answers:
                await self._wait_news()
            answer = self._answers[number]
        finally:
            self._asked.discard(number)
            self._answers.pop(number, None)
        if answer["event"] == "error":
            msg = f"{self.name} could not {op}"
            raise EngineError(msg, why=answer.get("message"))
        return answer

    async def tell(self, op: str, **fields: object) -> None:
        """Send what needs no answer; raises `EngineError`."""
        await self._send({"op": op, **fields})

    async def refuse(self, members: Iterable[str]) -> None:
        """Have the script abort all connections with these, from now on."""
        await self._send(*({"op": "refuse", "member": label} for label in members))

    async def close(self) -> None:
        """End the script in order, or without its help."""
        with trio.move_on_after(_CLOSE_AFTER):
            try:
                await self._send({"op": "close"}, whole_within=0.0)
                await self._job.wait()
            except AemeshError:
                pass  # it has ended, or cannot be reached: what follows is for both
        await self.end()

    async def end(self) -> None:
        """End the script and its children, whatever is cancelled meanwhile."""
        with trio.CancelScope(shield=True):
            await self._job.end(term_after=0.0)

    async def listen(self) -> None:
        """Take what the script says until it has ended."""
        heard: Mapping[Channel, tuple[LineReader, Callable[[bytes], None]]] = {
            Channel.STDOUT: (LineReader(limit=_LINE_BYTES), self._take_line),
            Channel.STDERR: (LineReader(limit=_WORDS_BYTES), self._take_words),
        }
        try:
            async with aclosing(self._job.output()) as output:
                async for chunk in output:
                    lines, take = heard[chunk.channel]
                    for n, line in enumerate(lines.receive_untrusted(chunk.data), 1):
                        take(line)
                        if n % _LINES_A_TURN == 0:
                            await trio.lowlevel.checkpoint()
            self._exit = await self._job.wait()
        finally:
            self.ended.set()
            self._tell_news()

    def last_words(self) -> str:
        """Return why the script ended, as far as it said."""
        code = f"it ended with {self._exit.code}" if self._exit else "it ended"
        reason = f" ({self._exit.reason})" if self._exit and self._exit.reason else ""
        words = f": {quoted(self._words[-1])}" if self._words else ""
        return code + reason + words

    def _take_line(self, line: bytes) -> None:
        said = said_untrusted(line)
        if said is None:
            if self.may_tell():
                shown = quoted(repr(line[:_SHOWN_BYTES]))
                _log.warning("%s said no line of ours: %s", self.name, shown)
            return
        event, message = said["event"], said.get("message", "")
        if event in ("ready", "up", "unopened"):
            self._opened = said
        elif said.get("id") in self._asked:
            self._answers[said["id"]] = said
        elif event == "error":
            self._words.append(message)
            if self.may_tell():
                _log.warning("%s: %s", self.name, quoted(message))
        elif event == "listening":
            self.take(said)
        elif self.may_tell():
            subject = quoted(said.get("name", ""))
            _log.debug("%s: %s %s", self.name, event, subject)
            self.take(said)
        self._tell_news()

    def may_tell(self) -> bool:
        """Whether one more line of this script may be told in this minute."""
        now = trio.current_time()
        if now - self._told_at >= 60.0:
            self._told_at, self._told = now, 0
        self._told += 1
        return self._told <= _TOLD_PER_MINUTE

    def _take_words(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if text:
            self._words.append(text)
            _log.debug("%s: %s", self.name, quoted(text))

    async def _wait_news(self) -> None:
        if self.ended.is_set():
            msg = f"{self.name} ended"
            raise EngineError(msg, why=self.last_words())
        await self._news.wait()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _send(
        self, *orders: Mapping[str, object], whole_within: float = _WHOLE_AFTER
    ) -> None:
        """Send lines; who is cancelled stays so long to say the last to its end."""
        lines = [json.dumps(order).encode() + b"\n" for order in orders]

        async def send() -> None:
            before = b"\n" if self._is_cut else b""
            self._is_cut = True
            await self._job.send(before + b"".join(lines))
            self._is_cut = False

        try:
            async with self._sending:
                await whole(send, within=whole_within)
        except AemeshError as exc:
            msg = f"{self.name} does not listen"
            raise EngineError(msg, why=str(exc)) from exc


def said_untrusted(line: bytes) -> Said | None:
    """Return what a line says as far as it is ours; None if it says nothing."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    # Not `isinstance`: true is no number.
    said = {name: v for name, v in found.items() if type(v) is _FIELDS.get(name)}
    return cast("Said", said) if "event" in said else None


def _ignore(_said: Said) -> None:
    """Take no notice."""
