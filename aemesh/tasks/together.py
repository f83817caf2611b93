"""Doing at one time what many ask for: those who come meanwhile share the next turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import trio

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Turn(Generic[K, V]):
    keys: list[K] = field(default_factory=list)
    results: Mapping[K, V] | None = None


class Together(Generic[K, V]):
    """Does something for all who ask at one time; `do` gives each its own result.

    A turn begins when all of its askers have asked, so nobody gets what was before.
    """

    def __init__(self, do: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._do = do
        self._next = _Turn[K, V]()
        self._lock = trio.Lock()

    def __repr__(self) -> str:
        return f"<Together: {len(self._next.keys)} wait>"

    async def ask(self, key: K) -> V:
        """Return what `do` gives for this key; raises what it raises."""
        turn = self._next
        turn.keys.append(key)
        async with self._lock:
            if turn is self._next:
                self._next = _Turn()
            if turn.results is None:  # else another one of this turn has done it
                turn.results = await self._do(turn.keys)
        return turn.results[key]
