"""From what was heard on the network to news: judged one by one, at a bounded pace."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import BadMessage
from aemesh.model.address import Address
from aemesh.net.interfaces import scope_name
from aemesh.protocol.announcement import (
    claims_untrusted,
    decode_untrusted,
    instance_name,
)

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.model.trust import Role
    from aemesh.net.presence import Clock
    from aemesh.policy.discovery import News, Sightings

# An office that answers a fresh browser comes all at once: a quarter of a second's
# worth of strangers is let through without a wait.
_BURST_AFTER = 0.25


@dataclass(frozen=True, slots=True)
class Heard:
    """An instance was announced or changed; `txt` is as a stranger sent it.

    `scopes` has, for link-local addresses, the index of the interface of ours that
    they were heard on.  `addresses` are those of its SRV, A and AAAA records: nothing
    is done with them but to show where a lie points to.
    """

    instance: str
    txt: Mapping[bytes, bytes | None]
    scopes: Mapping[str, str] = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Gone:
    """An instance said goodbye, or was not heard for more than an hour."""

    instance: str


class NewsStream:
    """Raw sightings judged one by one; a cancelled wait loses none."""

    def __init__(
        self,
        role: Role,
        sightings: Sightings,
        *,
        receive: Callable[[], Awaitable[Heard | Gone]],
        clock: Clock,
        links: Callable[[], tuple[str, ...]] = tuple,
    ) -> None:
        self._role = role
        self._sightings = sightings
        self._receive = receive
        self._clock = clock
        self._links = links
        self._pace = Pace(limits.SIGHTINGS_PER_SECOND)
        self._held: Heard | Gone | None = None

    def __aiter__(self) -> NewsStream:
        return self

    async def __anext__(self) -> News:
        while True:
            if self._held is None:
                self._held = await self._receive()
            if self._held.instance not in instance_names(self._sightings.known):
                await self._pace.wait()
            event, self._held = self._held, None
            news = self._judge(event)
            if news is not None:
                return news

    def _judge(self, event: Heard | Gone) -> News | None:
        if isinstance(event, Gone):
            return self._sightings.goodbye(event.instance)
        return judge(
            self._role,
            event,
            self._sightings,
            now=self._clock(),
            links=self._links(),
        )


class Pace:
    """Lets so many pass a second; after a pause, a burst at once."""

    def __init__(self, per_second: float) -> None:
        self._each_after = 1 / per_second
        self._free_at = trio.current_time()

    async def wait(self) -> None:
        """Return when one more may pass."""
        earliest_at = trio.current_time() - _BURST_AFTER
        self._free_at = max(self._free_at, earliest_at) + self._each_after
        await trio.sleep_until(self._free_at)


def judge(
    role: Role,
    heard: Heard,
    sightings: Sightings,
    *,
    now: float,
    links: tuple[str, ...] = (),
) -> News:
    """Return what `sightings` makes of something that a stranger announced.

    `links` are the interfaces for link-local addresses of unknown scope.
    """
    try:
        announcement = decode_untrusted(role, heard.instance, heard.txt)
    except BadMessage as exc:
        claims = claims_untrusted(heard.txt, heard.addresses)
        return sightings.imposter(heard.instance, exc.what, claims)
    scoped = dict.fromkeys(
        scoped
        for address in announcement.addresses
        for scoped in _scoped(address, heard.scopes, links)
    )
    return sightings.heard(replace(announcement, addresses=tuple(scoped)), now)


def _scoped(
    address: Address, scopes: Mapping[str, str], links: tuple[str, ...]
) -> tuple[Address, ...]:
    """Return a link-local IPv6 address with each scope that it may be behind."""
    ip = address.ip
    if ip.version == 4 or not ip.is_link_local:
        return (address,)
    heard_on = scope_name(scopes.get(address.host, ""))
    names = (heard_on,) if heard_on else links[: limits.LINK_LOCAL_SCOPES]
    return tuple(Address(f"{address.host}%{name}", address.port) for name in names)


@functools.lru_cache(maxsize=32)
def instance_names(known: frozenset[KeyId]) -> frozenset[str]:
    """Return the instance names that these keys announce themselves by."""
    return frozenset(instance_name(key_id) for key_id in known)
