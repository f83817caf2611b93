"""Cuts the bytes of a fuzzer into numbers, texts and pieces, always in the same way.

At the end of the bytes there is only zero, and zero always means "as it was": no
bytes at all make an honest input of every target that is built with this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

# Values that mean something somewhere, or nearly do.
ODD: tuple[object, ...] = (
    *(None, True, False, "", 0, 1, -1, 2, 2**53, 2**53 + 1, 2**64, 1e300, 0.5),
    *([], {}, [[]], {"": ""}, "\x1b[2J", "\u202e", "é", "x" * 65, "x" * 1001),
    *("00" * 16, "00" * 32, "0 " * 16, "AAAA", "YQ==", "YR=="),
    *("open", "leap", "token", "gss", "x509", "ok", "pending", "no", "known"),
    *("worker", "master", "control", "stream", "10.0.0.2:7472", "[fe80::1%eth0]:1"),
)


class Cutter:
    """Takes from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_empty(self) -> bool:
        return self._at >= len(self._data)

    def number(self, below: int) -> int:
        """A number from 0 on, below `below`."""
        size = (below - 1).bit_length() // 8 + 1
        return int.from_bytes(self.bytes(size), "big") % below

    def bytes(self, count: int) -> bytes:
        """At most so many bytes."""
        piece = self._data[self._at : self._at + count]
        self._at += count
        return piece

    def piece(self) -> bytes:
        """As many bytes as the next byte says."""
        return self.bytes(self.number(256))

    def rest(self) -> bytes:
        return self.bytes(len(self._data))

    def text(self) -> str:
        return self.piece().decode("utf-8", "surrogateescape")

    def one_of(self, choices: Sequence[T]) -> T:
        return choices[self.number(len(choices))]

    def json_value(self, more: Sequence[object] = ()) -> object:
        """A value as JSON has it, or close to it; perhaps one of `more`."""
        match self.number(8):
            case 7 if self.number(64) == 63:
                return "x" * 70_000
            case 0 | 1 if more:
                return self.one_of(more)
            case 2:
                return self.piece().decode("utf-8", "replace")
            case 3:
                return self.piece().decode("latin-1")
            case 4:
                return int.from_bytes(self.bytes(8), "big", signed=True)
            case 5:
                return [self.json_value(more) for _ in range(self.number(4))]
            case 6:
                return {self.piece().decode("latin-1"): self.json_value(more)}
        return self.one_of(ODD)

    def pieces(self, stream: bytes) -> list[bytes]:
        """The same bytes one by one if they are few, in at most nine pieces if not."""
        if len(stream) <= 64:
            return [bytes((byte,)) for byte in stream]
        ends = sorted(self.number(len(stream) + 1) for _ in range(self.number(9)))
        starts = [0, *ends]
        return [stream[a:b] for a, b in zip(starts, [*ends, None], strict=True)]

    def mutated(self, honest: bytes) -> bytes:
        """The same, or with some bytes changed, cut or doubled."""
        data = bytearray(honest)
        for _ in range(self.number(4)):
            at = self.number(len(data) or 1)
            match self.number(4):
                case 0:
                    data[at : at + 1] = self.bytes(1)
                case 1:
                    del data[at : at + self.number(8)]
                case 2:
                    data[at:at] = self.bytes(self.number(8))
                case 3:
                    data[at : at + 1] = (
                        b ^ 1 << self.number(8) for b in data[at : at + 1]
                    )
        return bytes(data)

    def mutated_fields(
        self, honest: Mapping[str, object], more: Sequence[object] = ()
    ) -> dict[str, object]:
        """The same, or some fields with another value, or none, or one more."""
        fields = dict(honest)
        for _ in range(self.number(4)):
            name = self.one_of([*honest, "more"])
            if self.number(8) == 7:
                fields.pop(name, None)
            else:
                fields[name] = self.json_value(more)
        return fields


def as_json(value: object) -> bytes:
    """JSON as Python writes it, which knows NaN and lone surrogates."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
