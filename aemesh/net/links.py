"""The links of one node: of all to one peer, one counts.

A second one comes when a peer was started anew, when both sides dialled at one time, or
when a key is used in two places.  `aemesh.policy.clones` tells which it is; meanwhile
the second serves nothing, but its beats go to and fro.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from aemesh.policy.clones import SecondLink, second_link, yields

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.net.link import Link

# A first link is looked at this often while it has to show that it lives.
_LOOK_EVERY = 0.1


class Links(dict["KeyId", "Link"]):
    """By peer, the link that counts; `changed` is set, and made anew, at each change.

    Whoever settled a link takes it out with `leave`, when all that it meant is over.
    """

    def __init__(self, ours: KeyId) -> None:
        super().__init__()
        self.changed = trio.Event()
        self._ours = ours

    async def settle(self, link: Link) -> SecondLink | None:
        """Return `TAKES` when this link counts from now on, or why it does not.

        None: it ended before that was clear.
        """
        peer = link.peer.key_id
        came_at = trio.current_time()
        while link.closed is None:
            changed = self.changed
            older = self.get(peer)
            if older is None:
                self[peer] = link
                self._tell_changed()
                return SecondLink.TAKES
            place = self._judge(older, link, came_at)
            if place is SecondLink.TAKES:
                older.close("a newer link took its place")
            elif place is not SecondLink.WAITS:
                return place
            with trio.move_on_after(_LOOK_EVERY):
                await changed.wait()
        return None

    def leave(self, link: Link) -> None:
        """Take a link out, if it is the one that counts."""
        if self.get(link.peer.key_id) is link:
            del self[link.peer.key_id]
            self._tell_changed()

    def _judge(self, older: Link, link: Link, came_at: float) -> SecondLink:
        if older.closed is not None:
            return SecondLink.TAKES
        return second_link(
            older.peer.run,
            link.peer.run,
            came_at=came_at,
            heard_at=older.heard_at,
            now=trio.current_time(),
            yields=yields(self._dialler(older), self._dialler(link)),
        )

    def _dialler(self, link: Link) -> KeyId:
        return self._ours if link.dialled else link.peer.key_id

    def _tell_changed(self) -> None:
        self.changed.set()
        self.changed = trio.Event()
