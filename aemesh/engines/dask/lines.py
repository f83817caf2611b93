"""Lines, cut out of what a script says in pieces of any size.

What waits for its end is neither copied nor searched again when more comes: else a
peer makes each of its bytes cost as much as a whole line.
"""

from __future__ import annotations


class LineReader:
    """Cuts lines out of bytes; one that grows beyond `limit` comes in pieces."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._rest = bytearray()

    def __repr__(self) -> str:
        return f"<LineReader {len(self._rest)} bytes of {self._limit} waiting>"

    def receive_untrusted(self, data: bytes) -> list[bytes]:
        """Take bytes; return the lines that they end, without their ends."""
        first, *others = data.split(b"\n")
        self._rest += first
        if not others:
            return [self.leftover()] if len(self._rest) > self._limit else []
        lines = [self.leftover(), *others]
        self._rest += lines.pop()
        return lines

    def leftover(self) -> bytes:
        """Return and forget the line that has not ended."""
        rest = bytes(self._rest)
        self._rest.clear()
        return rest
