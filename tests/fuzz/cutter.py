"""Cuts the bytes of a fuzzer into numbers, texts and pieces, always in the same way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Cutter:
    """Takes from the front; at the end there is only zero and nothing."""

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

    def json_value(self) -> object:
        """A value as JSON has it, or close to it."""
        kind = self.number(9)
        if kind == 0:
            return self.piece().decode("utf-8", "replace")
        if kind == 1:
            return int.from_bytes(self.bytes(8), "big", signed=True)
        if kind == 2:
            return self.number(1000) / 7
        if kind == 3:
            return [self.piece().decode("latin-1") for _ in range(self.number(4))]
        if kind == 4:
            return {self.piece().decode("latin-1"): self.number(256)}
        length = self.number(70_000) if self.number(64) == 0 else self.number(2000)
        return (None, True, "", "x" * length)[kind % 4]

    def pieces(self, stream: bytes) -> list[bytes]:
        """The same bytes in at most five pieces."""
        ends = sorted(self.number(len(stream) + 1) for _ in range(self.number(5)))
        starts = [0, *ends]
        return [stream[a:b] for a, b in zip(starts, [*ends, None], strict=True)]

    def mutated(self, honest: bytes) -> bytes:
        """Some bytes of `honest` changed, cut or doubled."""
        data = bytearray(honest)
        for _ in range(1 + self.number(4)):
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
            if self.is_empty:
                break
        return bytes(data)

    def mutated_fields(self, honest: dict[str, object]) -> dict[str, object]:
        """Some fields of a message with another value, or none, or one more."""
        fields = dict(honest)
        for _ in range(1 + self.number(3)):
            name = self.one_of([*honest, "more"])
            if self.number(8) == 0:
                fields.pop(name, None)
            else:
                fields[name] = self.json_value()
        return fields


def as_json(value: object) -> bytes:
    """JSON as Python writes it, which knows NaN and lone surrogates."""
    return json.dumps(value).encode("utf-8", "surrogatepass")
