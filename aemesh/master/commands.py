"""What a person runs on members beside the engine: on all of them, on some, on one.

Whatever engine a group has, its members hold a lease of ours and run jobs; so a command
needs no engine of its own, and is ended with the lease as all jobs are.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from aemesh.errors import GroupIncompleteError, UnknownNameError, UsageError, quoted
from aemesh.master.delegations import Delegations
from aemesh.master.group import Group
from aemesh.master.history import History
from aemesh.master.record import WorkerRecord
from aemesh.master.sharing import Sharing
from aemesh.model.job import Chunk, JobExit, JobSpec
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName
from aemesh.model.view import OutputView
from aemesh.plugin import Engine, Exec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable, Sequence

    from aemesh.master.remote import RemoteMember
    from aemesh.model.names import NodeName
    from aemesh.model.view import Delegate
    from aemesh.plugin import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Commands:
    """The commands of one master's user."""

    groups: Mapping[GroupName, Group]
    find: Callable[[GroupName], Group]  # raises `UnknownNameError`
    incomplete: Callable[[Group], GroupIncompleteError]
    engines: Callable[[str], Engine]
    delegations: Delegations
    records: Mapping[KeyId, WorkerRecord]
    sharing: Sharing
    history: History

    async def exec(
        self,
        name: GroupName,
        spec: JobSpec,
        *,
        workers: Sequence[str] = (),
        delegate: Delegate | None = None,
    ) -> AsyncGenerator[OutputView, None]:
        """Run a command on each member, or on those that are named."""
        group = self.find(name)
        members = _staying(group)
        if workers:
            chosen = [select(members, worker) for worker in workers]
            members = [one for one in members if one in chosen]
        if not members:
            raise self.incomplete(group)
        members = self._for_commands(members, delegate)
        async with self.engines("command").open(group.context()) as running:
            assert isinstance(running, Exec)
            for member in members:
                await running.add(member)
            exits: dict[NodeName, tuple[JobExit, float]] = {}
            began = trio.current_time()
            async with aclosing(running.run(spec)) as output:
                async for worker, item in output:
                    if isinstance(item, JobExit):
                        exits[worker] = item, trio.current_time() - began
                    yield _output_view(worker, item)
            self._count_exits(group, exits)

    async def start(
        self,
        group: GroupName | None,
        worker: str,
        spec: JobSpec,
        *,
        delegate: Delegate | None = None,
    ) -> Job:
        """Start a job on one member; without a group on the one there is of that name.

        Raises `UnknownNameError`, `UsageError` if several go by it, and what starting
        a job raises.
        """
        groups = self.groups.values() if group is None else (self.find(group),)
        members = [member for one in groups for member in _staying(one)]
        (member,) = self._for_commands([select(members, worker)], delegate)
        return await member.start(spec)

    def _for_commands(
        self, members: Iterable[RemoteMember], delegate: Delegate | None
    ) -> list[RemoteMember]:
        """Return members whose jobs count as commands, with this identity if any."""
        ours = [replace(one, activity=one.commands) for one in members]
        delegation = None if delegate is None else self.delegations.read(delegate)
        if delegation is None:
            return ours
        return [replace(one, delegation=lambda: delegation) for one in ours]

    def _count_exits(
        self, group: Group, exits: Mapping[NodeName, tuple[JobExit, float]]
    ) -> None:
        """Note on which members a command failed at once that others ran well."""
        well = any(exit_.ok for exit_, _ in exits.values())
        for key_id, member in list(group.members.items()):
            record = self.records.get(key_id)
            if record is None or member.name not in exits:
                continue
            exit_, took = exits[member.name]
            if exit_.ok:
                record.standing.did_well()
            elif record.standing.failed(
                f"a command ended with {exit_.code}",
                now=trio.current_time(),
                took=took,
                others_well=well,
            ):
                span, why = self.sharing.set_aside(record), record.standing.why
                text = f"{record.name} is set aside for {span:.0f} s: {why}"
                self.history.add(
                    "worker.aside", text, worker=record.name, group=group.name
                )


def _staying(group: Group) -> list[RemoteMember]:
    """Return the members on which a command may begin: those not on their way out."""
    return [one for one in group.members.values() if not one.commands.is_closed]


def select(members: Iterable[RemoteMember], wanted: str) -> RemoteMember:
    """Return the member that a person means: by label, name, fingerprint or address.

    Raises `UnknownNameError`; or `UsageError` when two go by that name.  An address is
    that of a machine: where two members share it, either does.
    """
    known = sorted(members, key=lambda one: one.label)
    exact = [one for one in known if wanted in {one.label, str(one.link.peer.key_id)}]
    named = exact or [one for one in known if one.name == wanted]
    if len(named) > 1:
        msg = f"two workers are called {quoted(wanted)}"
        labels = ", ".join(one.label for one in named)
        raise UsageError(msg, hint=f"name one of them by its label: {labels}")
    found = named or [one for one in known if one.address == wanted]
    if not found:
        kind = "member"
        raise UnknownNameError(kind, wanted, [one.name for one in known])
    return found[0]


def _output_view(name: str, item: Chunk | JobExit) -> OutputView:
    if isinstance(item, JobExit):
        return OutputView(worker=name, code=item.code, reason=item.reason)
    data = base64.b64encode(item.data).decode()
    return OutputView(worker=name, channel=item.channel.name.lower(), data=data)
