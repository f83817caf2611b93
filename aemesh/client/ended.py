"""An item of `aemesh map` that has ended, with what it wrote, and as it is kept."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

import msgspec

from aemesh import limits
from aemesh.errors import SettingsError
from aemesh.protocol.parcel import pack, unpack_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

# Output of one item in memory; what is more goes to a file of our own, without a name.
_IN_MEMORY = 1024 * 1024


class Said:
    """What an item wrote to one of its outputs; it goes with the last who knows it."""

    def __init__(self) -> None:
        self.size = 0
        self._file: IO[bytes] | None = None

    def add(self, data: bytes) -> None:
        """Take the next piece; raises `SettingsError` if there is no room for it."""
        with _room():
            if self._file is None:
                spooled = tempfile.SpooledTemporaryFile
                self._file = spooled(max_size=_IN_MEMORY)
            self._file.write(data)
        self.size += len(data)

    def pieces(self) -> Iterator[bytes]:
        """Yield all of it; raises as `add`: the last may be written only now."""
        if self._file is None:
            return
        with _room():
            self._file.seek(0)
        while data := self._file.read(limits.CHUNK_BYTES):
            yield data

    def all(self) -> bytes:
        """Return all of it."""
        return b"".join(self.pieces())

    def __repr__(self) -> str:
        return f"<Said: {self.size} bytes>"

    def __del__(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # of what was not written yet, and is not wanted
                self._file.close()


@contextmanager
def _room() -> Iterator[None]:
    """Say which folder has no room for output that waits its turn."""
    try:
        yield
    except OSError as error:
        msg = f"output finds no room in {tempfile.tempdir or 'any temporary folder'}"
        hint = "set $TMPDIR to a folder that has"
        raise SettingsError(msg, why=error.strerror, hint=hint) from error


@dataclass(slots=True)
class Ended:
    """An item that has ended for good: how, where, and what it wrote."""

    number: int  # from 0
    argv: tuple[str, ...]
    worker: str  # that ran it last
    code: int
    reason: str  # why it ended, if not by itself
    began_at: float  # seconds since 1970
    took_after: float  # seconds
    tries: int
    kept: bool = False  # it was kept from an earlier time
    stdout: Said = field(default_factory=Said)
    stderr: Said = field(default_factory=Said)

    @property
    def ok(self) -> bool:
        """Whether it ended by itself, with 0."""
        return self.code == 0 and not self.reason


class _Words(msgspec.Struct, frozen=True):
    """What is kept of an item beside its outputs."""

    worker: str
    began_at: float
    took_after: float
    tries: int
    stdout: int  # bytes of it; the rest is error output


def packed(ended: Ended) -> bytes:
    """Return an item that ended well as a value of its run."""
    words = _Words(
        worker=ended.worker,
        began_at=ended.began_at,
        took_after=ended.took_after,
        tries=ended.tries,
        stdout=ended.stdout.size,
    )
    return pack(msgspec.json.encode(words), ended.stdout.all(), ended.stderr.all())


def unpacked(number: int, argv: tuple[str, ...], value: bytes) -> Ended:
    """Return an item as it was kept."""
    head, blob = unpack_untrusted(value)
    words = msgspec.json.decode(head, type=_Words)
    ended = Ended(
        number,
        argv,
        words.worker,
        code=0,
        reason="",
        began_at=words.began_at,
        took_after=words.took_after,
        tries=words.tries,
        kept=True,
    )
    ended.stdout.add(bytes(blob[: words.stdout]))
    ended.stderr.add(bytes(blob[words.stdout :]))
    return ended
