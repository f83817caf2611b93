"""Which group a free worker goes to.

A worker that served a group comes back to it (its data and warm processes may still
be of use); any other goes to the group with the fewest members.  Competing weights,
minima and maxima come with `allocate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from aemesh.model.names import GroupName


def place(
    *,
    last: GroupName | None,
    members: Mapping[GroupName, int],
    accepts: AbstractSet[GroupName],
) -> GroupName | None:
    """Return the group for a free worker, or None when no group takes members.

    `last` is the group that it served or was moved to, `members` counts those that
    each group has, `accepts` are the groups that the worker may serve now.
    """
    if last is not None and last in accepts:
        return last
    open_groups = [(count, name) for name, count in members.items() if name in accepts]
    return min(open_groups, default=(0, None))[1]
