"""Where workers come in at a master: those who dial it, and the streams it asked for.

It stands behind the same door as a worker's (`aemesh.net.entrance`), with the same
bounds.  Who is let in goes to the roster, which knows the worker's record: whoever
dialled, the link is attended in the same way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aemesh.master.window import Views, Window
from aemesh.model.trust import Decision, Peer, Reason, Verdict
from aemesh.net.entrance import Door, Entry
from aemesh.net.listener import Listener
from aemesh.protocol.hello import Purpose

if TYPE_CHECKING:
    from collections.abc import Callable

    import trio

    from aemesh.master.callbacks import Callbacks
    from aemesh.master.parts import Parts
    from aemesh.master.roster import Roster
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName
    from aemesh.net.shake import Channel


class Reception:
    """Lets workers in; one for each master that listens."""

    def __init__(
        self,
        parts: Parts,
        roster: Roster,
        callbacks: Callbacks,
        *,
        has_enough: Callable[[], bool],
        views: Views,
    ) -> None:
        self._parts = parts
        self.roster = roster
        self.has_enough = has_enough
        self._callbacks = callbacks
        self.door = Door(
            parts.desk,
            chance=parts.chance,
            linked=self._linked,
            make_entry=partial(_Guest, self),
        )
        self._window = Window(views, parts.desk, serves=self._serves, log=self.door.log)
        self._listener = Listener(self.door, parts.shaker, self._serve)

    def __repr__(self) -> str:
        return f"<Reception {self._listener!r}>"

    async def run(self, *, task_status: trio.TaskStatus[int]) -> None:
        """Accept until cancelled; reports the port."""
        parts = self._parts
        assert parts.port is not None, "a master that does not listen has no reception"
        await parts.network.serve(
            self._listener.admit,
            port=parts.port,
            hosts=parts.hosts,
            task_status=task_status,
        )

    async def _serve(self, channel: Channel) -> None:
        if channel.purpose is Purpose.STREAM:
            await self._callbacks.take(channel)
        elif channel.purpose is Purpose.ASK:
            await self._window.show(channel)
        else:
            await self.roster.welcome(channel)

    def _serves(self, worker: KeyId) -> GroupName | None:
        """Return the group that a linked worker serves."""
        record = self.roster.records.get(worker)
        if record is None or record.link is None:
            return None
        return record.membership.group

    def _linked(self, worker: KeyId) -> Peer | None:
        link = self.roster.links.get(worker)
        return None if link is None else link.peer


class _Guest(Entry):
    """The doorman of a worker that dialled us."""

    answers = True

    def __init__(self, reception: Reception, door: Door, source: str) -> None:
        super().__init__(door, source)
        self._reception = reception

    def judge(
        self, peer: Peer, *, purpose: Purpose, skew: float, expected: KeyId | None
    ) -> Verdict:
        """Return the desk's verdict; a worker that is not needed now is told so."""
        verdict = super().judge(peer, purpose=purpose, skew=skew, expected=expected)
        if purpose is not Purpose.CONTROL:
            return verdict
        # Only to whom we trust: nobody else learns how we are.
        if verdict.decision is Decision.OK and self._reception.has_enough():
            told = "the master has all the workers that it wants"
            return Verdict(Decision.NO, Reason.ENOUGH, told)
        self._reception.roster.note_guest(peer, verdict)
        return verdict
