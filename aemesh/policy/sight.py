"""What somebody who asks a master from another machine may see.

Two may ask: whom a person let observe, by its line of trust, and a worker about the
group that it serves.  Nobody else hears more than a no.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aemesh.model.names import GroupName
from aemesh.model.trust import Terms
from aemesh.policy.terms import allow_group

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemesh.model.view import (
        EventView,
        GroupStatusView,
        GroupView,
        StatusView,
        WorkerView,
    )


@dataclass(frozen=True, slots=True)
class Sight:
    """What of a master one asker sees: with `only`, this group and its members."""

    terms: tuple[Terms, ...] = ()
    only: GroupName | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is hidden."""
        return self.only is None and not any(each.groups for each in self.terms)

    def sees(self, group: str | None) -> bool:
        """Whether something of this group is seen; None: of no group at all."""
        if group is None:
            return self.is_whole
        if self.only is not None:
            return group == self.only
        return allow_group(self.terms, GroupName(group))

    def workers(self, found: Iterable[WorkerView]) -> list[WorkerView]:
        """Return the workers that are seen, without what is not of them."""
        return [self._worker(one) for one in found if self.sees(one.group)]

    def groups(self, found: Iterable[GroupView]) -> list[GroupView]:
        """Return the groups that are seen."""
        return [one for one in found if self.sees(one.name)]

    def group(self, status: GroupStatusView) -> GroupStatusView:
        """Return a group that is seen, without workers of others."""
        refused = status.refused if self.is_whole else ()
        return replace(status, refused=refused)

    def events(self, found: Iterable[EventView]) -> list[EventView]:
        """Return the lines of the history that are seen."""
        return [one for one in found if self.sees(one.group)]

    def status(self, status: StatusView) -> StatusView:
        """Return the master as it is seen: nothing of its machine but its name."""
        return replace(
            status,
            pid=0,
            state_dir="",
            workers=tuple(self.workers(status.workers)),
            groups=tuple(self.groups(status.groups)),
            imposters=status.imposters if self.is_whole else (),
        )

    def _worker(self, one: WorkerView) -> WorkerView:
        if self.is_whole:
            return one
        if not self.sees(one.placed or one.group):
            one = replace(one, placed=None, why="")
        return replace(one, held_group=one.group, note="")


def sight_of(
    *, observes: bool, terms: tuple[Terms, ...], serves: GroupName | None
) -> Sight | None:
    """Return what an asker sees, or None if it may not ask.

    `terms` are those of its trust; `serves` is the group that it serves now.
    """
    if observes:
        return Sight(terms)
    return None if serves is None else Sight(only=serves)
