"""Who was seen on the network: a bounded table of announcements, by key.

Announcements are hints (D3): a key says where it listens.  So the table decides only
what is worth telling and whom to dial where; trust and life come from the link itself.

- An unknown key may push out another unknown key, never a known one (threat 61).
- A goodbye marks a node as silent and does nothing else (threat 60).
- An older announcement never replaces a newer one; an expired one is not taken.
- Of known keys the addresses that once were right are kept, so that a lie about the
  present one delays, and no more (threat 59).
- Only addresses of local networks at unprivileged ports are dialled (threat 62).

`now` is in seconds since 1970, as the times in announcements are.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.model.machine import NOTHING_CLAIMED, Announcement, Claims

if TYPE_CHECKING:
    from collections.abc import Iterable

# Not `is_private`: that includes documentation, benchmarks, "this network" and more.
_LOCAL_NETWORKS = tuple(
    ipaddress.ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    )
)


@dataclass(frozen=True, slots=True)
class New:
    """A key that was not in the table is announced."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Updated:
    """A key in the table says something else, has one more address, or is back."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Same:
    """Nothing that is not known already."""

    announcement: Announcement


@dataclass(frozen=True, slots=True)
class Replayed:
    """An announcement that a later one of the same key has replaced."""

    announcement: Announcement
    latest_at: float


@dataclass(frozen=True, slots=True)
class Expired:
    """An announcement that held until `late_after` seconds ago by our clock."""

    announcement: Announcement
    late_after: float


@dataclass(frozen=True, slots=True)
class Imposter:
    """Something announced `instance` (raw text of a stranger) and could not prove it.

    `key_id` is the key that owns this name, if it is in the table.  `times` counts
    them, so that a caller can tell the first and be quiet of the rest.  `claims` is
    what it said of itself, for people.
    """

    instance: str
    reason: str
    key_id: KeyId | None
    times: int
    claims: Claims = NOTHING_CLAIMED


@dataclass(frozen=True, slots=True)
class Silent:
    """A goodbye was heard in the name of this key; it may be forged."""

    key_id: KeyId


News = New | Updated | Same | Replayed | Expired | Imposter | Silent


@dataclass(frozen=True, slots=True)
class Sighting:
    """One line of the table."""

    announcement: Announcement
    known: bool
    silent: bool
    heard_at: float


@dataclass(slots=True)
class _Entry:
    announcement: Announcement
    heard_at: float
    # What `signed_at` is compared by; see `Sightings.heard`.
    order_at: float
    silent: bool = False


@dataclass(slots=True)
class _Known:
    label: str
    entry: _Entry | None = None
    # Where it was announced or proved itself; the latest comes last.
    remembered: OrderedDict[Address, None] = field(default_factory=OrderedDict)


class Sightings:
    """The table of one node: all keys of the other role that were announced."""

    def __init__(self, known: Iterable[KeyId] = ()) -> None:
        self._known: dict[KeyId, _Known] = {}
        # The unknown key that was heard longest ago comes first.
        self._strangers: OrderedDict[KeyId, _Entry] = OrderedDict()
        self._keys: dict[str, KeyId] = {}  # by label
        self._imposters: OrderedDict[str, int] = OrderedDict()
        self.known: frozenset[KeyId] = frozenset()  # nobody else pushes these out
        self.set_known(known)

    def __repr__(self) -> str:
        return f"<Sightings {len(self._known)} known, {len(self._strangers)} unknown>"

    def __contains__(self, key_id: KeyId) -> bool:
        return self._entry(key_id) is not None

    def set_known(self, key_ids: Iterable[KeyId]) -> None:
        """Say which keys are trusted; what was heard of each stays in the table."""
        wanted = frozenset(key_ids)
        if wanted is self.known:  # as after most announcements
            return
        for key_id in self._known.keys() - wanted:
            dropped = self._known.pop(key_id)
            del self._keys[dropped.label]
            if dropped.entry is not None:
                self._store(key_id, dropped.entry)
        for key_id in wanted - self._known.keys():
            entry = self._strangers.pop(key_id, None)
            self._known[key_id] = _Known(key_id.label, entry)
            self._keys[key_id.label] = key_id
        self.known = wanted

    def heard(self, announcement: Announcement, now: float) -> News:
        """Take in an announcement whose signature holds, and say what is new of it."""
        late = now - announcement.expires_at
        if late > limits.CLOCK_SKEW_AFTER:
            return Expired(announcement, late)
        key_id = announcement.key.key_id
        # A machine that started with its clock a day ahead must be believed again
        # once it is right; so nothing counts as signed later than now.
        order_at = min(announcement.signed_at, now + limits.CLOCK_SKEW_AFTER)
        entry = self._entry(key_id)
        if entry is None:
            self._store(key_id, _Entry(announcement, now, order_at))
            return New(announcement)
        if order_at < entry.order_at:
            return Replayed(announcement, entry.announcement.signed_at)
        news = self._renew(entry, announcement, order_at)
        entry.heard_at = now
        if key_id in self._strangers:
            self._strangers.move_to_end(key_id)
        return news

    def imposter(
        self, instance: str, reason: str, claims: Claims = NOTHING_CLAIMED
    ) -> Imposter:
        """Count an announcement that is not what its key would have said."""
        instance = instance[:64]
        times = self._imposters.pop(instance, 0) + 1
        self._imposters[instance] = times
        if len(self._imposters) > limits.IMPOSTERS_SEEN:
            self._imposters.popitem(last=False)
        owner = self._owner(instance)
        return Imposter(instance, reason, owner, times, claims)

    def goodbye(self, instance: str) -> Silent | None:
        """Mark a node as silent; None if it is not in the table, or was silent.

        No link is to be closed for it, and its addresses stay good to dial.
        """
        key_id = self._owner(instance)
        entry = None if key_id is None else self._entry(key_id)
        if key_id is None or entry is None or entry.silent:
            return None
        entry.silent = True
        return Silent(key_id)

    def proved(self, key_id: KeyId, address: Address) -> None:
        """Remember that a known key proved itself at `address`."""
        known = self._known.get(key_id)
        if known is not None:
            _remember(known, (address,))

    def addresses(
        self, key_id: KeyId, *, loopback: bool = False
    ) -> tuple[Address, ...]:
        """Return where to dial a key: as announced, then where it was, latest first."""
        entry, known = self._entry(key_id), self._known.get(key_id)
        announced = () if entry is None else entry.announcement.addresses
        before = () if known is None else tuple(reversed(known.remembered))
        both = dict.fromkeys((*announced, *before))
        return tuple(one for one in both if dialable(one, loopback=loopback))

    def snapshot(self) -> tuple[Sighting, ...]:
        """Return the table: known keys first, then unknown ones, oldest first."""
        known = tuple(
            _sighting(one.entry, known=True)
            for one in self._known.values()
            if one.entry is not None
        )
        strangers = self._strangers.values()
        return known + tuple(_sighting(entry, known=False) for entry in strangers)

    def check(self) -> None:
        """Assert what always holds."""
        assert len(self._strangers) <= limits.NAMES_SEEN
        assert len(self._imposters) <= limits.IMPOSTERS_SEEN
        assert self._known.keys() == self.known
        assert not self.known & self._strangers.keys()
        assert set(self._keys.values()) == self._known.keys() | self._strangers.keys()
        assert all(key_id.label == label for label, key_id in self._keys.items())
        for known in self._known.values():
            assert len(known.remembered) <= limits.ADDRESSES_REMEMBERED

    def _entry(self, key_id: KeyId) -> _Entry | None:
        known = self._known.get(key_id)
        return self._strangers.get(key_id) if known is None else known.entry

    def _owner(self, instance: str) -> KeyId | None:
        # An instance name ends in the label of its key: "aemesh-…".
        return self._keys.get(instance.rpartition("-")[2])

    def _store(self, key_id: KeyId, entry: _Entry) -> None:
        known = self._known.get(key_id)
        if known is not None:
            known.entry = entry
            return
        self._strangers[key_id] = entry
        self._keys[key_id.label] = key_id
        if len(self._strangers) > limits.NAMES_SEEN:
            oldest, _ = self._strangers.popitem(last=False)
            del self._keys[oldest.label]

    def _renew(
        self, entry: _Entry, announcement: Announcement, order_at: float
    ) -> Updated | Same:
        was, was_silent = entry.announcement, entry.silent
        if _is_same(was, announcement):
            announcement = _with_more_addresses(was, announcement.addresses)
        elif (known := self._known.get(was.key.key_id)) is not None:
            _remember(known, reversed(was.addresses))
        entry.announcement, entry.order_at, entry.silent = announcement, order_at, False
        changed = was_silent or announcement != was
        return Updated(announcement) if changed else Same(announcement)


def dialable(address: Address, *, loopback: bool = False) -> bool:
    """Whether an announcement may make us knock at this address (threat 62).

    Loopback only if asked; a link-local IPv6 address needs its scope.
    """
    try:
        ip = address.ip
    except ValueError:
        return False
    if not limits.LOWEST_PORT <= address.port < 65536 or ip.is_multicast:
        return False
    if ip.is_loopback:
        return loopback
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_link_local and not ip.scope_id:
        return False
    return any(ip in net for net in _LOCAL_NETWORKS if net.version == ip.version)


def _is_same(was: Announcement, announcement: Announcement) -> bool:
    """Whether one statement was heard twice; scopes are our own addition to it."""
    # Clocks can stand still: a process may say two things at one time.
    ports = {address.port for address in (*was.addresses, *announcement.addresses)}
    return len(ports) == 1 and replace(was, addresses=announcement.addresses) == (
        announcement
    )


def _with_more_addresses(
    was: Announcement, addresses: Iterable[Address]
) -> Announcement:
    """Return the same announcement, as heard on one more network of ours."""
    both = tuple(dict.fromkeys((*was.addresses, *addresses)))
    most = limits.ANNOUNCED_ADDRESSES * limits.LINK_LOCAL_SCOPES
    return replace(was, addresses=both[:most])


def _remember(known: _Known, addresses: Iterable[Address]) -> None:
    for address in addresses:
        known.remembered.pop(address, None)
        known.remembered[address] = None
    while len(known.remembered) > limits.ADDRESSES_REMEMBERED:
        known.remembered.popitem(last=False)


def _sighting(entry: _Entry, *, known: bool) -> Sighting:
    return Sighting(entry.announcement, known, entry.silent, entry.heard_at)
