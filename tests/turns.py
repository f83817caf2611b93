"""How much is done in one turn of the loop."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator


class Turns(trio.abc.Instrument):
    """Counts steps, in all and at most between two looks at the network."""

    def __init__(self) -> None:
        self.total = self.most = self._now = 0

    @classmethod
    @contextmanager
    def watched(cls) -> Iterator[Turns]:
        """Watch the loop during the block."""
        turns = cls()
        trio.lowlevel.add_instrument(turns)
        try:
            yield turns
        finally:
            trio.lowlevel.remove_instrument(turns)

    def before_io_wait(self, timeout: float) -> None:
        """Begin the next turn."""
        del timeout
        self._now = 0

    def count(self) -> None:
        """Note one step."""
        self.total += 1
        self._now += 1
        self.most = max(self.most, self._now)
