"""An engine for the bench: a port on each member, which it says how to reach."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aemesh.model.group import Haste, Receipt
from aemesh.model.job import JobSpec

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aemesh.plugin import GroupContext, Job, Member, Output, RunningEngine

_SCRIPT = Path(__file__).with_name("flow.py")


class Running:
    """One `flow.py` on each member."""

    def __init__(self, group: GroupContext) -> None:
        self._group = group
        self._jobs: dict[str, Job] = {}
        self._outputs: dict[str, Output] = {}  # a job ends when its reader does

    async def add(self, member: Member) -> None:
        """Start the far end, and tell the way to it."""
        argv = ("{python}", "flow.py", "serve", member.address)
        spec = JobSpec(argv, files={"flow.py": _SCRIPT.read_bytes()}, tls=True)
        job = self._jobs[member.label] = await member.start(spec)
        output = self._outputs[member.label] = job.output()
        port = int((await anext(output)).data)
        self._group.report(f"reach {member.name} {await member.reach(port)}")

    async def retire(
        self, member: Member, *, by_after: float, haste: Haste = Haste.SOON
    ) -> Receipt:
        """End it."""
        del by_after, haste
        await self.lost(member)
        return Receipt(member.name, self._group.name, graceful=True)

    async def lost(self, member: Member) -> None:
        """End it, or what is left of it."""
        job = self._jobs.pop(member.label, None)
        if job is not None:
            await job.end(term_after=0.0)

    def connect_info(self) -> Mapping[str, str]:
        """Return nothing: clients are told by the history."""
        return {}


class FlowEngine:
    """Found by the name of its entry point."""

    name = "flow"

    @asynccontextmanager
    async def open(self, group: GroupContext) -> AsyncIterator[RunningEngine]:
        """Be ready at once; it has no head."""
        yield Running(group)

    def spare_node(self) -> JobSpec | None:
        """Nothing is worth keeping warm."""
        return None

    def spare_head(self) -> JobSpec | None:
        """Nothing is worth keeping warm."""
        return None


ENGINE = FlowEngine()
