"""A group that keeps its size while somebody needs it as it is, and tells who is in it.

What runs over all members at once (MPI) begins with a list of them and ends with the
first that goes.  Its holder hears of that here, at the moment when we know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.errors import EngineError
from aemesh.model.view import HeldMember, HoldView

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from aemesh.master.group import Group
    from aemesh.master.sharing import Sharing
    from aemesh.model.names import GroupName


async def keep_held(
    name: GroupName, *, find: Callable[[GroupName], Group], sharing: Sharing
) -> AsyncGenerator[HoldView, None]:
    """Hold a group until closed; yield its members, and again when they change.

    Raises `UnknownNameError`, or `EngineError` when the group ends.
    """
    find(name)
    with sharing.hold(name):
        told: HoldView | None = None
        while True:
            group = find(name)
            if group.state not in {"opening", "ready"}:
                what = f"group {name} is held no longer"
                raise EngineError(what, why=f"it is {group.state}")
            changed, view = group.changed, _view(group)
            if view != told:
                yield view
                told = view
            await changed.wait()


def _view(group: Group) -> HoldView:
    members = (
        HeldMember(
            name=one.name,
            label=one.label,
            address=one.address,
            cores=one.cores,
            memory=one.memory,
        )
        for one in group.members.values()
    )
    ordered = tuple(sorted(members, key=lambda one: one.label))
    return HoldView(group=group.name, address=group.address, members=ordered)
