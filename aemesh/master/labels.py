"""Labels of a group's members: one for each, never given twice.

Two machines may go by one name, and one that was set up anew counts its generations
from one again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# A common name has 64 characters (RFC 5280), of which a number takes what is left: a
# dot and the 16 digits of 2**53.
_NAME_LENGTH = 47


class Labels:
    """The labels that one group gave out; `taken` are those of a former life."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self._last: dict[str, int] = {}  # by name: the last number given out
        for label in taken:
            name, _, number = label.rpartition(".")
            if number.isdigit():
                self._last[name] = max(int(number), self._last.get(name, 0))

    def __repr__(self) -> str:
        return f"<Labels of {len(self._last)} names>"

    def next(self, name: str, generation: int) -> str:
        """Return a label that nobody had.

        Cut, because it has to fit into a certificate's common name as a whole.
        """
        name = name[:_NAME_LENGTH]
        number = max(generation, self._last.get(name, 0) + 1)
        self._last[name] = number
        return f"{name}.{number}"
