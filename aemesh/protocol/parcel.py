"""A parcel: words in JSON and the bytes that they speak of, in one message.

::

    u32  length of the words, big endian, at most `limits.RUN_HEAD_BYTES`
    ...  the words, JSON
    ...  the bytes: all the rest
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LENGTH = 4


def pack(words: bytes, *blobs: bytes) -> bytes:
    """Return a parcel; raises `ValueError` if its words are too many."""
    if len(words) > limits.RUN_HEAD_BYTES:
        msg = f"words of {len(words)} bytes; the limit is {limits.RUN_HEAD_BYTES}"
        raise ValueError(msg)
    return b"".join((len(words).to_bytes(_LENGTH, "big"), words, *blobs))


def unpack_untrusted(data: bytes) -> tuple[bytes, memoryview]:
    """Return the words and the bytes of a parcel, or raise `BadMessage`."""
    length = int.from_bytes(data[:_LENGTH], "big")
    if len(data) < _LENGTH or length > min(limits.RUN_HEAD_BYTES, len(data) - _LENGTH):
        msg = "a parcel without its words"
        raise BadMessage(msg)
    rest = memoryview(data)[_LENGTH + length :]
    return data[_LENGTH : _LENGTH + length], rest


def cut_untrusted(blob: memoryview, sizes: Sequence[int]) -> Iterable[bytes]:
    """Return a parcel's bytes as pieces of these sizes, or raise `BadMessage`."""
    if sum(sizes) != len(blob):
        msg = f"pieces of {sum(sizes)} bytes in a parcel of {len(blob)}"
        raise BadMessage(msg)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(bytes(blob[at : at + size]))
        at += size
    return pieces
