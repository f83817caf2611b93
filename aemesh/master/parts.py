"""What a master is made of: all that it needs of the world."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from aemesh.host.ledger.ledger import Ledger
from aemesh.host.store import Store
from aemesh.master.delegation import Delegation
from aemesh.master.heads import LocalJobs
from aemesh.master.keeper import KeeperPlace
from aemesh.model.address import Address
from aemesh.model.key import KeyId
from aemesh.net.doorman import Desk, Doorman
from aemesh.net.rotation import FindNext
from aemesh.net.shake import Shaker
from aemesh.net.transport import Network
from aemesh.plugin import Engine
from aemesh.policy.discovery import News, dialable
from aemesh.protocol import wire


class Finder(Protocol):
    """Where news of workers come from; `aemesh.net.discovery` or a list."""

    def news(self) -> AsyncIterator[News]:
        """Yield what is heard of workers, until cancelled."""


class Announcer(Protocol):
    """Makes the master known; `aemesh.net.discovery` or nothing at all."""

    async def announce(self, *, port: int) -> None:
        """Announce until cancelled; then take it back."""

    def announce_again(self) -> None:
        """Announce anew now: workers that were refused should try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a master is made of."""

    key_id: KeyId
    name: str
    mode: str
    version: str
    state_dir: str
    shaker: Callable[[Doorman], Shaker]
    desk: Desk
    network: Network
    finder: Finder
    jobs: LocalJobs
    store: Store
    ledger: Ledger
    engines: Callable[[str], Engine]  # by name; raises `UnknownNameError`
    head_address: Callable[[], str]
    wall: Callable[[], float]
    # Returns when our network is another one, or we slept.
    wait_move: Callable[[], Awaitable[None]] = trio.sleep_forever
    next_key: FindNext = lambda: None  # that we offer to workers
    has_clients: Callable[[], bool] = lambda: False  # that live, on this machine
    delegation: Delegation | None = None  # of the user's identity, to all groups
    keeper: KeeperPlace | None = None  # who runs the heads; None: we do
    kept_after: float = 0.0  # how long workers go on without us
    heirs: tuple[KeyId, ...] = ()  # masters that may take over from us
    adopts: KeyId | None = None  # the master that we take over from
    inherit: Callable[[Address, KeyId], KeeperPlace] | None = None  # its keeper
    # Our signed word for a keeper, to our heirs.
    word: Callable[[Address, KeyId], wire.Keeper | None] = lambda _at, _key: None
    dialable: Callable[[Address], bool] = dialable  # where strangers may send us
    port: int | None = None  # where workers come in; 0: any; None: nowhere
    hosts: tuple[str, ...] = ()
    announcer: Announcer | None = None  # of one that listens
    chance: Callable[[], float] = lambda: 1.0  # in [0, 1), for the early drop
    addresses: Callable[[], tuple[str, ...]] = tuple  # of ours, to be shown
