"""Where workers wait that nobody trusts yet: so many handshakes, the oldest goes first.

Anybody on the network can announce a thousand keys, be dialled by us, and let each
handshake wait for a person.  Without a bound that takes all our file descriptors.
Whoever has to go leaves its request behind: an accept dials it again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from aemesh import limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio


class Anteroom:
    """The handshakes with strangers that are under way; one for each master."""

    def __init__(self) -> None:
        # The one that came first is first.
        self._inside: dict[trio.CancelScope, None] = {}

    def __repr__(self) -> str:
        return f"<Anteroom {len(self._inside)} inside>"

    @property
    def inside(self) -> int:
        """How many are under way."""
        return len(self._inside)

    @contextmanager
    def place(self, scope: trio.CancelScope) -> Iterator[None]:
        """Hold a place; `scope` is cancelled when a newcomer needs it."""
        if len(self._inside) >= limits.UNTRUSTED_SHAKES:
            oldest = next(iter(self._inside))
            del self._inside[oldest]
            oldest.cancel()
        self._inside[scope] = None
        try:
            yield
        finally:
            self._inside.pop(scope, None)
