"""A node's next key, offered to each peer over a link that its present key proved."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RequestFailedError, UnreachableError
from aemesh.protocol import wire
from aemesh.protocol.rotation import next_key_untrusted, statement

if TYPE_CHECKING:
    from aemesh.model.key import KeyId, PublicKey
    from aemesh.model.trust import Peer
    from aemesh.net.link import Link

_log = logging.getLogger(__name__)


class NextKey(Protocol):
    """The key that a node will have; `aemesh.host.keys.nextkey` or a fake."""

    @property
    def public(self) -> PublicKey:
        """Its public half."""

    def sign(self, message: bytes) -> bytes:
        """Return its signature of `message`."""

    def is_taken_by(self, peer: KeyId) -> bool:
        """Whether this peer has written it down."""

    def taken_by(self, peer: KeyId) -> None:
        """Note that this peer has written it down."""


class TakesKeys(Protocol):
    """Who keeps a peer's next key; the trust desk."""

    def take_next_key(self, peer: Peer, following: PublicKey) -> None:
        """Write it down, or raise `RefusedError` with the reason."""


# What a role is given: the next key of the moment, None while there is none.
FindNext = Callable[[], NextKey | None]


async def keep_offering(
    link: Link, present: KeyId, find: FindNext, changed: Callable[[], Awaitable[None]]
) -> None:
    """Offer our next key to the peer of a link, whenever there is one."""
    while True:
        following = _next_for(link.peer.key_id, find)
        if following is not None:
            try:
                await _offer(link, present, following)
            except UnreachableError:
                return
            except RequestFailedError as exc:
                _log.warning("our next key is not taken: %s", exc)
        await changed()


def take(link: Link, body: wire.Rotate, desk: TakesKeys) -> wire.Body:
    """Take the next key of a link's peer; raises `RefusedError` or `BadMessage`."""
    following = next_key_untrusted(body, link.peer.key_id, link.binding)
    desk.take_next_key(link.peer, following)
    return wire.Done()


def _next_for(peer: KeyId, find: FindNext) -> NextKey | None:
    """Return the next key if this peer has to hear of it; a bad file ends no link."""
    try:
        following = find()
        offered = following is None or following.is_taken_by(peer)
    except (AemeshError, OSError) as exc:
        _log.warning("our next key is not offered: %s", exc)
        return None
    return None if offered else following


async def _offer(link: Link, present: KeyId, following: NextKey) -> None:
    message = statement(present, following.public.key_id, link.binding)
    body = wire.Rotate(key=following.public.raw, sig=following.sign(message))
    with trio.move_on_after(limits.ANSWER_AFTER):
        await link.request(body, wire.Done)
        try:
            following.taken_by(link.peer.key_id)
        except AemeshError as exc:
            _log.warning("%s has our next key, which is not noted: %s", link.peer, exc)
