"""What is shown of a master's groups and workers, and why a worker serves none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import GroupIncompleteError, UnknownNameError
from aemesh.model.view import GroupStatusView, GroupView, PlacedView, WorkerView

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aemesh.host.store import Store
    from aemesh.master.group import Group
    from aemesh.master.record import WorkerRecord
    from aemesh.master.sharing import Sharing
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName

# Workers that are named in one error; `aemesh group show` has them all.
_REASONS = 10


class Overview:
    """All groups and workers of one master, to be looked at."""

    def __init__(
        self,
        records: Mapping[KeyId, WorkerRecord],
        groups: Mapping[GroupName, Group],
        sharing: Sharing,
        store: Store,
    ) -> None:
        self._records = records
        self._groups = groups
        self._sharing = sharing
        self._store = store

    def __repr__(self) -> str:
        return f"<Overview: {len(self._groups)} groups, {len(self._records)} workers>"

    def find(self, name: GroupName) -> Group:
        """Return a group by name, or raise `UnknownNameError`."""
        group = self._groups.get(name)
        if group is None:
            msg = "group"
            raise UnknownNameError(msg, name, sorted(self._groups))
        return group

    def workers(self) -> list[WorkerView]:
        """Return every worker that was heard of, by name."""
        views = [record.view() for record in self._records.values()]
        return sorted(views, key=lambda view: (view.name, view.key))

    def groups(self) -> list[GroupView]:
        """Return every group, by name."""
        return [self.group(self._groups[name]) for name in sorted(self._groups)]

    def group(self, group: Group) -> GroupView:
        """Return one group, with what it wants and lacks."""
        demand = self._sharing.demand(group.name)
        missing = max(0, demand.min - len(group.members))
        held = self._sharing.holders(group.name)
        return replace(group.view(), demand=demand, missing=missing, held=held)

    def status(self, name: GroupName) -> GroupStatusView:
        """Return all about one group: its members, and why others are none."""
        group = self.find(name)
        members: list[PlacedView] = []
        refused: list[PlacedView] = []
        for record in sorted(self._records.values(), key=_by_name):
            serves = record.key_id in group.members
            why = self._why(record, name, serves=serves)
            (members if serves else refused).append(
                PlacedView(
                    worker=record.name,
                    key=str(record.key_id),
                    group=record.membership.group,
                    why=why,
                )
            )
        events = self._store.group_events(name, most=limits.GROUP_EVENTS_SHOWN)
        return GroupStatusView(
            group=self.group(group),
            members=tuple(members),
            refused=tuple(refused),
            history=tuple(events),
        )

    def missing(self, group: Group) -> int:
        """Return how many members a client waits for: nobody computes with none."""
        least = max(1, self._sharing.demand(group.name).min)
        return max(0, least - len(group.members))

    def incomplete(self, group: Group) -> GroupIncompleteError:
        """Say which workers there are, and why none of them serves the group."""
        status, demand = self.status(group.name), self._sharing.demand(group.name)
        if demand.max == 0:
            return GroupIncompleteError(
                f"group {group.name} has no workers",
                why="its max is 0",
                hint=f"`aemesh group set {group.name} --max N` lets it have some",
            )
        reasons = [f"{one.worker}: {one.why}" for one in status.refused]
        shown, rest = reasons[:_REASONS], len(reasons) - _REASONS
        if rest > 0:
            shown.append(f"{rest} more")
        why = "; ".join(shown) or "no worker was found on this network"
        have, least = len(group.members), max(1, demand.min)
        what = f"group {group.name} has {have} of {least} workers"
        if not have:
            what = f"group {group.name} has no workers"
        return GroupIncompleteError(
            what,
            why=why,
            hint="start `aemesh worker` on a machine, and look at "
            f"`aemesh group show {group.name}`",
        )

    def _why(self, record: WorkerRecord, name: GroupName, *, serves: bool) -> str:
        """Return why a worker serves a group, or why it does not."""
        placement = record.placement
        refusal = self._sharing.refusal(record, name)
        if refusal:
            return refusal
        if placement is None:
            return "it has just come"
        if placement.group == name and not serves:
            return f"it is on its way: {placement.why}"
        if placement.group in {None, name}:
            return placement.why
        if placement.group == record.membership.group:
            return f"it serves {placement.group}"
        return f"it is for {placement.group}: {placement.why}"


def _by_name(record: WorkerRecord) -> tuple[str, str]:
    return record.name, str(record.key_id)
