"""What a group leaves for a successor of its master, and what it got from a former one.

Records are written before what they tell is done, and removed after it is over.  One of
a member that is gone may be there still: a successor waits for that member in vain, and
then goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.master.authority import GroupAuthority
from aemesh.master.kept import (
    Estate,
    GroupRecord,
    Heir,
    MemberRecord,
    encode,
    group_key,
    member_key,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.master.heads import Heads
    from aemesh.model.job import JobSpec
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName, JobId
    from aemesh.plugin import Job


class Succession:
    """The records of one life of one group."""

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        group: GroupName,
        engine: str,
        *,
        heads: Heads,
        address: Callable[[], str],
        now: float,
        estate: Estate | None = None,
    ) -> None:
        self.expected: dict[KeyId, Heir] = {} if estate is None else estate.members
        kept = None if estate is None else estate.authority
        self.authority = GroupAuthority(group, now=now, kept=kept)
        # The head of an heir's group stays where its former master is.
        self.head_is_here = estate is None or estate.is_here
        self._there = "" if estate is None else estate.address
        self._here = address
        self._group = group
        self._engine = engine
        self._heads = heads
        self._left = () if estate is None else estate.heads
        self._started: tuple[JobId, ...] = self._left

    def __repr__(self) -> str:
        return f"<Succession of {self._group}, {len(self.expected)} members expected>"

    @property
    def address(self) -> str:
        """Where members reach the head."""
        return self._here() if self.head_is_here else self._there

    async def start_head(self, job_id: JobId, spec: JobSpec) -> Job:
        """Start a head, which a successor is to know of if it is lasting."""
        if spec.lasting:
            if not self._started:  # what a former life left is of no use any more
                await self._heads.keep(group_key(self._group))
            self._started = (*self._started, job_id)
            record = GroupRecord(
                self._engine, self.authority.kept(), self.address, self._started
            )
            await self._heads.keep(group_key(self._group), encode(record))
        return await self._heads.start(
            job_id, spec, authority=self.authority, name=f"head of {self._group}"
        )

    async def adopt_head(self, broke: Callable[[], None]) -> Job | None:
        """Return the head that a former master left, if it goes on.

        One that is elsewhere may go on when its stream has ended: `broke` is called.
        """
        for job_id in reversed(self._left):
            job = await self._heads.adopt(
                job_id,
                authority=self.authority,
                name=f"head of {self._group}",
                broke=None if self.head_is_here else broke,
            )
            if job is not None:
                return job
        self.expected.clear()  # nobody can come back to a head that is gone
        self._started = ()
        return None

    def let_go(self) -> None:
        """Part with the keeper: its head is out of reach, or soon is."""
        self._heads.let_go()

    async def note_member(self, key_id: KeyId, heir: Heir) -> None:
        """Leave word of a member and its lasting jobs."""
        record = MemberRecord(
            heir.name, heir.label, heir.generation, heir.jobs, heir.ports, heir.at
        )
        key = member_key(self._group, key_id)
        await self._heads.keep(key, encode(record))

    async def forget_member(self, key_id: KeyId) -> None:
        """A member is gone: a successor is not to wait for it."""
        await self._heads.keep(member_key(self._group, key_id))

    async def forget(self) -> None:
        """The group ends: nothing is left of it."""
        await self._heads.keep(group_key(self._group))
