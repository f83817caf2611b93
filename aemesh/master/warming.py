"""Tells linked workers what to have warm, before they are needed.

A worker that is moved, or comes back, finds its next node waiting with the modules of
that group imported.  So it is told of each group to which it may go: the one that the
plan has for it first, the one that it is in last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import PeerError, UnreachableError
from aemesh.master.remote import ask
from aemesh.protocol import wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aemesh.master.group import Group
    from aemesh.master.record import WorkerRecord
    from aemesh.master.sharing import Sharing
    from aemesh.model.names import GroupName
    from aemesh.net.link import Link


def warm_kinds(
    record: WorkerRecord, groups: Mapping[GroupName, Group], sharing: Sharing
) -> tuple[wire.WarmKind, ...]:
    """Return what a worker does well to have warm, the likeliest first."""
    here = record.membership.group
    planned = None if record.placement is None else record.placement.group

    def distance(name: GroupName) -> tuple[int, str]:
        return (1 if name == here else -1 if name == planned else 0), name

    kinds = (
        wire.WarmKind(engine=groups[name].engine.name, preload=groups[name].preload)
        for name in sorted(sharing.suited(record), key=distance)
    )
    return tuple(dict.fromkeys(kinds))[: limits.WARM_KINDS]


async def keep_warm(
    record: WorkerRecord,
    link: Link,
    groups: Mapping[GroupName, Group],
    sharing: Sharing,
) -> None:
    """Tell one worker, and again when that changes, until cancelled.

    It has plain nodes by itself, and is told nothing as long as those are wanted.
    """
    told: tuple[wire.WarmKind, ...] | None = None
    while True:
        woken = record.ordered  # taken first, so that no change is missed
        kinds = warm_kinds(record, groups, sharing)
        named = any(kind.preload for kind in kinds)
        if kinds != told and (named or told is not None):
            told = kinds
            try:
                body = wire.Warm(kinds=kinds)
                await ask(link, body, wire.Done, within=limits.ANSWER_AFTER)
            except (PeerError, UnreachableError):
                return  # an older one, which has plain nodes; or it is gone
        await woken.wait()
