"""What every `Discovery` must do; run against the real one and the one in memory.

Each check opens nodes of one segment by `open_node`, with keys of its own, and ignores
whatever else is announced there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import TypeVar

import trio
from nacl.signing import SigningKey

from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net.presence import Discovery, Presence, Sign
from aemesh.net.wallclock import new_run
from aemesh.policy.discovery import New, News, Same, Sightings, Silent, Updated

OpenNode = Callable[[], AbstractAsyncContextManager[Discovery]]

_N = TypeVar("_N", New, Updated, Same, Silent)

# A fresh browser asks after up to 0.12 s; on a busy machine all takes longer.
HEARD_AFTER = 5.0


async def check_discovery(open_node: OpenNode) -> None:
    """Run all checks."""
    for check in (
        what_is_announced_is_heard,
        what_was_announced_before_is_heard,
        a_change_is_heard,
        a_new_signature_is_heard,
        roles_are_kept_apart,
        the_end_is_heard,
        who_is_withdrawn_is_silent_until_it_is_back,
        a_cancelled_wait_loses_nothing,
    ):
        await check(open_node)


async def what_is_announced_is_heard(open_node: OpenNode) -> None:
    """A browser that listens already hears all that is announced."""
    presence, sign = new_presence()
    async with (
        open_node() as node,
        open_node() as other,
        other.browse(presence.role, Sightings()) as stream,
    ):
        await node.announce(presence, sign=sign)
        news = await heard(stream, New, presence)
        _check_says(news, presence)


async def what_was_announced_before_is_heard(open_node: OpenNode) -> None:
    """A browser that comes later hears it too."""
    presence, sign = new_presence()
    async with open_node() as node, open_node() as other:
        await node.announce(presence, sign=sign)
        async with other.browse(presence.role, Sightings()) as stream:
            _check_says(await heard(stream, New, presence), presence)


async def a_change_is_heard(open_node: OpenNode) -> None:
    """Announcing again with the same key replaces what was said."""
    presence, sign = new_presence()
    changed = replace(presence, port=presence.port + 1, cores=presence.cores + 1)
    async with (
        open_node() as node,
        open_node() as other,
        other.browse(presence.role, Sightings()) as stream,
    ):
        await node.announce(presence, sign=sign)
        await heard(stream, New, presence)
        await node.announce(changed, sign=sign)
        _check_says(await heard(stream, Updated, presence), changed)


async def a_new_signature_is_heard(open_node: OpenNode) -> None:
    """`re_announce` says the same with a later date."""
    presence, sign = new_presence()
    async with (
        open_node() as node,
        open_node() as other,
        other.browse(presence.role, Sightings()) as stream,
    ):
        await node.announce(presence, sign=sign)
        first = await heard(stream, New, presence)
        await node.re_announce()
        second = await heard(stream, Updated, presence)
    assert second.announcement.signed_at > first.announcement.signed_at
    _check_says(second, presence)


async def roles_are_kept_apart(open_node: OpenNode) -> None:
    """Who listens for masters hears no worker."""
    worker, sign_worker = new_presence()
    master, sign_master = new_presence(Role.MASTER)
    sightings = Sightings()
    async with (
        open_node() as node,
        open_node() as other,
        other.browse(Role.MASTER, sightings) as stream,
    ):
        await node.announce(worker, sign=sign_worker)
        await node.announce(master, sign=sign_master)
        await heard(stream, New, master)
    assert worker.key.key_id not in sightings
    sightings.check()


async def the_end_is_heard(open_node: OpenNode) -> None:
    """A node that closes says goodbye; it stays in the table, as silent."""
    presence, sign = new_presence()
    sightings = Sightings()
    async with (
        open_node() as other,
        other.browse(presence.role, sightings) as stream,
    ):
        async with open_node() as node:
            await node.announce(presence, sign=sign)
            await heard(stream, New, presence)
        await heard(stream, Silent, presence)
    assert presence.key.key_id in sightings
    sightings.check()


async def who_is_withdrawn_is_silent_until_it_is_back(open_node: OpenNode) -> None:
    """Withdrawing says goodbye for one node; it may be announced again."""
    presence, sign = new_presence()
    async with (
        open_node() as node,
        open_node() as other,
        other.browse(presence.role, Sightings()) as stream,
    ):
        await node.announce(presence, sign=sign)
        await heard(stream, New, presence)
        await node.withdraw(presence.key.key_id)
        await heard(stream, Silent, presence)
        await node.announce(presence, sign=sign)
        await heard(stream, Updated, presence)


async def a_cancelled_wait_loses_nothing(open_node: OpenNode) -> None:
    """The stream is still good after a timeout."""
    presence, sign = new_presence()
    async with (
        open_node() as node,
        open_node() as other,
        other.browse(presence.role, Sightings()) as stream,
    ):
        with trio.move_on_after(0.01):
            while True:
                await anext(stream)
        await node.announce(presence, sign=sign)
        await heard(stream, New, presence)


def new_presence(role: Role = Role.WORKER) -> tuple[Presence, Sign]:
    """Return a node with a fresh key, and what signs for it."""
    key = SigningKey.generate()
    presence = Presence(
        role=role,
        name=NodeName(f"some-{role.value}"),
        key=PublicKey(bytes(key.verify_key)),
        mode=Mode.LEAP,
        cores=4,
        memory=8 * 1024**3,
        port=7472,
        run=new_run(),
    )
    return presence, lambda message: key.sign(message).signature


async def heard(stream: AsyncIterator[News], kind: type[_N], presence: Presence) -> _N:
    """Return the next news of this kind about this node; others are passed over."""
    with trio.fail_after(HEARD_AFTER):
        while True:
            news = await anext(stream)
            if isinstance(news, kind) and _key_id(news) == presence.key.key_id:
                return news


def _key_id(news: New | Updated | Same | Silent) -> object:
    if isinstance(news, Silent):
        return news.key_id
    return news.announcement.key.key_id


def _check_says(news: New | Updated, presence: Presence) -> None:
    told = news.announcement
    assert (told.role, told.name, told.key) == (
        presence.role,
        presence.name,
        presence.key,
    )
    assert (told.mode, told.cores, told.memory) == (
        presence.mode,
        presence.cores,
        presence.memory,
    )
    assert told.addresses
    assert {address.port for address in told.addresses} == {presence.port}
    assert told.signed_at < told.expires_at
