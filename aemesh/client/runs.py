"""Durable runs as a client sees them: what is committed, and commits of its own.

All that is asked here may be asked again, so a master that is killed and started anew
meanwhile costs time and nothing else: see `aemesh.client.patience`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from aemesh import limits
from aemesh.client.targets import run_target
from aemesh.client.transport import error_in
from aemesh.errors import BugError, UnreachableError
from aemesh.master.control_wire import AskValues, CommitValues, OpenRun
from aemesh.model.run import ItemView, RunView
from aemesh.protocol.parcel import pack
from aemesh.protocol.questions import ValueHead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aemesh.client.transport import Transport
    from aemesh.model.run import Piece

_VALUE, _ABSENT, _ERROR = range(3)
_HEAD_BYTES = 5
# Values asked for with one request: the master reads one at a time, so a page is bound
# by what names its items.
_PAGE = limits.RUN_BATCH_ITEMS


class Runs:
    """The runs that a master keeps."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def all(self) -> list[RunView]:
        """Return every run, the one used last first."""
        return self._transport.ask("GET", "/v1/runs", answer=list[RunView])

    def show(self, group: str, key: str) -> RunView:
        """Return a run; raises `UnknownRunError`."""
        return self._transport.ask("GET", run_target(group, key), answer=RunView)

    def drop(self, group: str, key: str) -> None:
        """Remove a run and all it has; raises `UnknownRunError`."""
        self._transport.ask("DELETE", run_target(group, key), answer=dict)

    def open(  # noqa: PLR0913 - what a run is, by name
        self,
        group: str,
        key: str,
        *,
        fingerprint: str,
        title: str,
        total: int = 0,
        fresh: bool = False,
    ) -> Run:
        """Go on with a run, or begin it; `fresh` forgets what it had.

        Raises `OtherWorkError` if its values are of another `fingerprint`.
        """
        wish = OpenRun(
            group=group,
            key=key,
            fingerprint=fingerprint,
            title=title,
            total=total,
            fresh=fresh,
        )
        view = self._transport.ask("POST", "/v1/runs", body=wish, answer=RunView)
        return self.of(view)

    def of(self, view: RunView) -> Run:
        """Return the run of a view."""
        return Run(self._transport, view)

    def __repr__(self) -> str:
        return f"<Runs at {self._transport.path}>"


class Run:
    """One life of one run; `view` is how it was when it was opened."""

    def __init__(self, transport: Transport, view: RunView) -> None:
        self._transport = transport
        self.view = view

    @property
    def key(self) -> str:
        """The key that the user chose."""
        return self.view.key

    @property
    def life(self) -> int:
        """What tells it from others of its key, before it and after it."""
        return self.view.life

    def items(self, after: int = 0, *, follow: bool = False) -> Iterator[ItemView]:
        """Yield what was committed behind number `after`; with `follow`, what comes."""
        asked = f"life={self.life}&after={after}&follow={int(follow)}"
        for line in self._transport.lines("GET", f"{self._target('items')}?{asked}"):
            try:
                yield msgspec.json.decode(line, type=ItemView)
            except msgspec.MsgspecError as error:
                raise error_in(line) or _unreadable(error) from None

    def commit(self, pieces: Sequence[Piece], *, worker: str = "") -> None:
        """Commit values, of a worker or ours; returns once they are on the disk."""
        heads = [
            ValueHead(id=piece.id, size=len(piece.value), title=piece.title)
            for piece in pieces
        ]
        words = CommitValues(items=tuple(heads), life=self.life, worker=worker)
        parcel = pack(msgspec.json.encode(words), *(piece.value for piece in pieces))
        self._transport.ask("POST", self._target("commit"), body=parcel, answer=dict)

    def values(self, ids: Iterable[str]) -> Iterator[bytes | None]:
        """Yield the value of each of these items; None for what is not committed."""
        waiting = list(ids)
        while waiting:
            page, waiting = waiting[:_PAGE], waiting[_PAGE:]
            wish = AskValues(items=tuple(page), life=self.life)
            target = self._target("values")
            pieces = self._transport.pieces("POST", target, body=wish)
            yield from _cut(pieces, len(page))

    def _target(self, part: str) -> str:
        return run_target(self.view.group, self.view.key, part)

    def __repr__(self) -> str:
        return f"<Run {self.key} of {self.view.group}, life {self.life}>"


def _cut(pieces: Iterator[bytes], count: int) -> Iterator[bytes | None]:
    """Cut values out of the answer, as `aemesh.master.control_runs` writes them."""
    buffer = bytearray()
    for _ in range(count):
        _fill(buffer, _HEAD_BYTES, pieces)
        kind, length = buffer[0], int.from_bytes(buffer[1:_HEAD_BYTES], "big")
        _fill(buffer, _HEAD_BYTES + length, pieces)
        data = bytes(buffer[_HEAD_BYTES : _HEAD_BYTES + length])
        del buffer[: _HEAD_BYTES + length]
        if kind == _ERROR:
            raise error_in(data) or _unreadable(ValueError("an error without words"))
        yield data if kind == _VALUE else None


def _fill(buffer: bytearray, length: int, pieces: Iterator[bytes]) -> None:
    while len(buffer) < length:
        piece = next(pieces, b"")
        if not piece:
            msg = "the master hung up"
            raise UnreachableError(msg, why="its answer broke off")
        buffer += piece


def _unreadable(error: Exception) -> BugError:
    return BugError("the master's answer cannot be read", why=str(error))
