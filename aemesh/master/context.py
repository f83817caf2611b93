"""What an engine may ask of the group that it runs on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh.master.history import History
from aemesh.master.succession import Succession
from aemesh.model.group import Demand
from aemesh.model.names import GroupName, JobId
from aemesh.plugin import Member

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aemesh.model.job import JobSpec
    from aemesh.plugin import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One life of a group, for its engine; implements `aemesh.plugin.GroupContext`."""

    name: GroupName
    history: History
    succession: Succession
    wants: Callable[[], Demand]
    next_job: Callable[[], JobId]
    is_closing: Callable[[], bool]
    head_is_cut_off: Callable[[], None]  # an adopted head is out of reach
    is_broken: Callable[[Member, str], None]  # the engine's node there, and why

    @property
    def address(self) -> str:
        """The address for members to reach the head."""
        return self.succession.address

    @property
    def head_is_here(self) -> bool:
        """Whether the head runs on this machine; an adopted one may not."""
        return self.succession.head_is_here

    @property
    def closing(self) -> bool:
        """Whether it is about to end."""
        return self.is_closing()

    @property
    def preload(self) -> tuple[str, ...]:
        """Modules that nodes are to have imported."""
        return self.wants().preload

    @property
    def settings(self) -> Mapping[str, str]:
        """What the group's user set of the engine."""
        return self.wants().settings

    async def start_head(self, spec: JobSpec) -> Job:
        """Start a job beside the master, with the group's certificate if it asks."""
        return await self.succession.start_head(self.next_job(), spec)

    async def adopt_head(self) -> Job | None:
        """Return the head that a former master left, if it goes on."""
        return await self.succession.adopt_head(self.head_is_cut_off)

    def report(self, text: str) -> None:
        """Add one line to the group's history."""
        self.history.add("engine.report", text, group=self.name)

    def member_broken(self, member: Member, why: str) -> None:
        """The engine lost its node on a member: it is brought up anew."""
        self.is_broken(member, why)
