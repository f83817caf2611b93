"""The lives of a master's groups: opened, opened anew when an engine fails, closed.

Each life has its own authority: certificates of the last one open nothing.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.master.asked import Questions
from aemesh.master.group import Group

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.host.ledger.clerk import Clerk
    from aemesh.master.delegations import Delegations
    from aemesh.master.heritage import Heritage
    from aemesh.master.history import History
    from aemesh.master.invitation import Invitation
    from aemesh.master.parts import Parts
    from aemesh.master.reach import Gate
    from aemesh.master.roster import Roster
    from aemesh.master.sharing import Sharing
    from aemesh.master.takeover import Takeover
    from aemesh.model.names import GroupName
    from aemesh.plugin import Engine

# An engine that died may have met bad luck, or something that kills it each time.
_AGAIN_AFTER = 1.0
_AGAIN_CAP_AFTER = 60.0
# One that lived so long had no part in what went before.
_WELL_AFTER = 600.0


class Lives:
    """Who begins and ends groups; `groups` has the present life of each."""

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        parts: Parts,
        groups: dict[GroupName, Group],
        *,
        spawn: Callable[..., None],
        history: History,
        clerk: Clerk,
        roster: Roster,
        sharing: Sharing,
        invitation: Invitation,
        delegations: Delegations,
        gate: Gate,
        heritage: Heritage,
        takeover: Takeover | None,
    ) -> None:
        self._parts = parts
        self._groups = groups
        self._spawn = spawn
        self._history = history
        self._questions = Questions(clerk, spawn)
        self._roster = roster
        self._sharing = sharing
        self._invitation = invitation
        self._delegations = delegations
        self._gate = gate
        self._heritage = heritage
        self._takeover = takeover

    def __repr__(self) -> str:
        return f"<Lives of {len(self._groups)} groups>"

    def start(self, name: GroupName, engine: str) -> None:
        """Begin a group; raises `UnknownNameError` for an unknown engine."""
        group = self._new_group(name, self._parts.engines(engine))
        self._groups[name] = group
        self._spawn(self._run, group)

    async def close(self, group: Group) -> None:
        """End a group; returns when it is over."""
        group.close()
        while group.state not in ("closed", "failed") and not group.suspended:
            await group.changed.wait()
        self._groups.pop(group.name, None)
        self._roster.wake_all()

    async def close_all(self) -> None:
        """End all groups, at once."""
        with trio.move_on_after(limits.RETIRE_AFTER + limits.TERM_AFTER):
            async with trio.open_nursery() as nursery:
                for group in list(self._groups.values()):
                    nursery.start_soon(self.close, group)

    def _new_group(self, name: GroupName, engine: Engine) -> Group:
        estate, heads, tenure = self._heritage.claim(name)
        return Group(
            name,
            engine,
            address=self._parts.head_address,
            gate=self._gate,
            heads=heads,
            history=self._history,
            wall=self._parts.wall,
            wants=partial(self._parts.store.demand, name),
            delegation=self._delegations.of(name),
            estate=estate,
            tenure=tenure,
            questions=self._questions,
        )

    async def _run(self, group: Group) -> None:
        """Run a group; one whose engine failed is opened anew, ever more slowly."""
        pause = _AGAIN_AFTER
        while self._groups.get(group.name) is group:
            began = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_on_change, group)
                await group.run()
                nursery.cancel_scope.cancel()
            self._roster.wake_all()
            if group.suspended and self._takeover is not None:
                while self._takeover.awaits(group.name):
                    await self._takeover.changed.wait()
            elif group.state != "failed":
                return
            else:
                if trio.current_time() - began > _WELL_AFTER:
                    pause = _AGAIN_AFTER
                await trio.sleep(pause)
                pause = min(2 * pause, _AGAIN_CAP_AFTER)
            if self._groups.get(group.name) is group:
                former = group
                group = self._new_group(former.name, former.engine)
                self._groups[group.name] = group
                former.wake()  # who waits for the group looks at the present one
                self._roster.wake_all()

    async def _look_on_change(self, group: Group) -> None:
        state = ""
        while True:
            changed = group.changed  # taken first, so that no change is missed
            if group.state != state:
                state = group.state
                self._sharing.changed()
                self._roster.wake_all()
            else:
                self._sharing.look()
            self._invitation.look()
            await changed.wait()
