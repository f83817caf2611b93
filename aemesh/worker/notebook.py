"""What a master leaves for its successor, in the memory of its keeper: bounded text.

Nothing here is understood by us; the master writes it, and whoever adopts reads it.
"""

from __future__ import annotations

from bisect import bisect_right

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.protocol import wire


class Notebook:
    """Entries by key, in order."""

    def __init__(self) -> None:
        self._entries: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Notebook of {len(self._entries)} entries>"

    def keep(self, key: str, data: str) -> None:
        """Keep one entry; without data forget it, and those beneath it (`key/…`).

        Raises `RefusedError`.
        """
        if not data:
            beneath = f"{key}/"
            for one in [o for o in self._entries if o == key or o.startswith(beneath)]:
                del self._entries[one]
            return
        if key not in self._entries and len(self._entries) >= limits.KEPT_ENTRIES:
            what = "the keeper keeps no more"
            raise RefusedError(what, why=f"it has {len(self._entries)} entries")
        self._entries[key] = data

    def page(self, after: str) -> wire.Recalled:
        """Return the entries behind `after`, as many as fit into one message."""
        keys = sorted(self._entries)
        first = bisect_right(keys, after)
        return wire.Recalled(
            entries=tuple(
                wire.Keep(key=key, data=self._entries[key])
                for key in keys[first : first + limits.KEPT_PAGE]
            )
        )

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
