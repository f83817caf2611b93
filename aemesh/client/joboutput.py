"""What a detached script said: kept within a bound, read while it grows.

The problem: a script may talk for days, and a log that is cut in place or renamed
pulls the text from under whoever follows it.  So the output is one long stream of
bytes, kept in pieces that are named by where they begin: ``output.0``,
``output.4194304`` …  The oldest piece goes when there are too many.  A reader says
from where it wants more; what is gone by then is a number that it is told.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX = "output."
_PRIVATE = 0o600
_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of the output from `at` on; `gone` are missing before them."""

    at: int
    data: bytes
    gone: int = 0

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.at + len(self.data)


class OutputWriter:
    """Writes the output of one script; nothing else may write it."""

    def __init__(self, folder: Path, *, piece_bytes: int = 0, pieces: int = 0) -> None:
        self._folder = folder
        self._piece_bytes = piece_bytes or limits.JOB_OUTPUT_PIECE_BYTES
        self._pieces = pieces or limits.JOB_OUTPUT_PIECES
        self._start = 0
        self._size = 0
        self._fd = self._open()

    def write(self, data: bytes) -> None:
        """Keep `data`; what the disk has no room for is lost, not waited for."""
        view = memoryview(data)
        while view:
            if self._size >= self._piece_bytes:
                self._begin_next()
            part = view[: self._piece_bytes - self._size]
            try:
                written = os.write(self._fd, part)
            except OSError:  # a full disk: the script is not to stop for it
                return
            self._size += written
            view = view[written:]

    def close(self) -> None:
        """Close the piece that is open."""
        os.close(self._fd)

    def _begin_next(self) -> None:
        self._start, self._size = self._start + self._size, 0
        fresh = self._open()
        os.close(self._fd)
        self._fd = fresh
        for start in _starts(self._folder)[: -self._pieces]:
            (self._folder / f"{_PREFIX}{start}").unlink(missing_ok=True)

    def _open(self) -> int:
        path = self._folder / f"{_PREFIX}{self._start}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        return os.open(path, flags, _PRIVATE)


def read_output(folder: Path, at: int) -> Piece:
    """Return what there is from `at` on, a part of it at a time; empty at the end."""
    while True:
        starts = _starts(folder)
        if not starts:
            return Piece(at, b"")
        start = max((one for one in starts if one <= at), default=starts[0])
        here = max(at, start)
        try:
            with (folder / f"{_PREFIX}{start}").open("rb") as file:
                file.seek(here - start)
                return Piece(here, file.read(_READ_BYTES), gone=here - at)
        except FileNotFoundError:
            continue  # it was the oldest, and went meanwhile


def last_lines(folder: Path, lines: int) -> int:
    """Return from where on the last `lines` lines of the output are."""
    data, piece = bytearray(), read_output(folder, 0)
    first = piece.at
    while piece.data:
        data += piece.data
        piece = read_output(folder, piece.end)
    if not lines:
        return first + len(data)
    at = len(data) - data.endswith(b"\n")
    for _ in range(lines):
        at = data.rfind(b"\n", 0, max(at, 0))
        if at < 0:
            return first
    return first + at + 1


def output_start(folder: Path) -> int:
    """Return how many of the first bytes are not kept any more."""
    return next(iter(_starts(folder)), 0)


@contextlib.contextmanager
def kept_output(writer: OutputWriter) -> Iterator[None]:
    """Keep what this process and its children print, until the end of the block.

    Nothing may run below this process any more by then, or the block would wait for
    what that has to say.
    """
    reading, writing = os.pipe()
    for number in (1, 2):
        os.dup2(writing, number)
    os.close(writing)
    pump = threading.Thread(target=_pump, args=(reading, writer), name="output")
    pump.start()
    try:
        yield
    finally:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for number in (1, 2):
            os.dup2(nowhere, number)
        os.close(nowhere)
        pump.join()
        os.close(reading)
        writer.close()


def _pump(reading: int, writer: OutputWriter) -> None:
    while data := os.read(reading, _READ_BYTES):
        writer.write(data)


def _starts(folder: Path) -> list[int]:
    names = (path.name.removeprefix(_PREFIX) for path in folder.glob(f"{_PREFIX}*"))
    return sorted(int(name) for name in names if name.isdecimal())
