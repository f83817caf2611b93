"""What was left to a master: the groups of the process before it, or of another master.

For each group: its estate, who runs its heads, and what its workers are told of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.master.heads import Heads
from aemesh.master.joining import FLEETING, Tenure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aemesh.master.group import Group
    from aemesh.master.history import History
    from aemesh.master.keeper import Keeper
    from aemesh.master.kept import Estate
    from aemesh.master.parts import Parts
    from aemesh.model.address import Address
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName


class Heritage:
    """Groups that go on; implements `aemesh.master.takeover.Heritage`."""

    def __init__(
        self,
        parts: Parts,
        groups: Mapping[GroupName, Group],
        history: History,
        *,
        start: Callable[[GroupName, str], None],
    ) -> None:
        self.heads = Heads(parts.jobs, wall=parts.wall)  # ours
        self._tenure = FLEETING
        self._parts = parts
        self._groups = groups
        self._history = history
        self._start = start
        self._estates: dict[GroupName, Estate] = {}
        self._elsewhere: dict[GroupName, tuple[Heads, Tenure]] = {}

    def __repr__(self) -> str:
        return f"<Heritage of {len(self._estates)} groups>"

    def settle(self, keeper: Keeper, key_id: KeyId, at: Address | None) -> None:
        """Have our own keeper run the heads; `at` is where our heirs reach it."""
        self.heads.keeper = keeper
        self._estates.update(keeper.estates)
        self._tenure = self._tenure_with(at, key_id)

    def claim(self, name: GroupName) -> tuple[Estate | None, Heads, Tenure]:
        """Return what the next life of a group begins with; it is given out once."""
        if name not in self._elsewhere:
            self._parts.store.put_inherited(name, None)
        heads, tenure = self._elsewhere.pop(name, (self.heads, self._tenure))
        return self._estates.pop(name, None), heads, tenure

    def take_over(
        self,
        at: tuple[Address, KeyId],
        keeper: Keeper,
        *,
        awaited: frozenset[GroupName],
    ) -> frozenset[GroupName]:
        """Go on with groups of another master as they were; return which.

        Of a keeper that we had, only those that are `awaited` are still wanted.
        """
        parts, taken = self._parts, set()
        for name, estate in keeper.estates.items():
            group = self._groups.get(name)
            if group is not None and not group.suspended:
                text = f"group {name} is not taken over: we have one of that name"
                self._history.add("master.no-takeover", text, group=name)
                continue
            if awaited and name not in parts.store.groups():
                continue  # it was closed meanwhile
            estate.is_here = False
            self._estates[name] = estate
            heads = Heads(parts.jobs, wall=parts.wall, keeper=keeper)
            tenure = self._tenure_with(at[0] if parts.heirs else None, at[1])
            self._elsewhere[name] = heads, tenure
            parts.store.put_group(name, estate.engine)
            parts.store.put_inherited(name, at)
            taken.add(name)
            if group is None:
                self._start(name, estate.engine)
        self.begin_anew(awaited - taken)
        return frozenset(taken)

    def suspend(self, groups: frozenset[GroupName]) -> None:
        """Leave groups as they run: their keeper is out of reach."""
        for name in groups:
            if name in self._groups:
                self._groups[name].suspend()

    def begin_anew(self, groups: frozenset[GroupName]) -> None:
        """Open groups anew whose heads nobody goes on with."""
        store = self._parts.store
        for name, engine in store.groups().items():
            if name in groups:
                store.put_inherited(name, None)
                if name not in self._groups:
                    self._start(name, engine)

    def _tenure_with(self, at: Address | None, key_id: KeyId) -> Tenure:
        """Return what we say to workers, with heads at a keeper that heirs reach."""
        parts = self._parts
        return Tenure(
            kept_after=parts.kept_after,
            heirs=tuple(map(str, parts.heirs)),
            keeper=parts.word(at, key_id) if at is not None else None,
        )
