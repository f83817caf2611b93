"""A master and its keeper: where they meet, and what they prove to each other."""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.host.control.sockets import connected
from aemesh.host.keys.keystore import Identity, load_or_make
from aemesh.host.statedir import KEEPER, state_root
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.keeper import WITHOUT_KEEPER, KeeperPlace
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net.local import HERE, LocalNetwork
from aemesh.net.shake import shakers
from aemesh.net.wallclock import new_run
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol import wire
from aemesh.protocol.hello import Ourselves
from aemesh.protocol.keeperword import statement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aemesh.model.address import Address
    from aemesh.model.key import KeyId
    from aemesh.net.doorman import Doorman
    from aemesh.net.shake import Shaker
    from aemesh.net.transport import Network

_log = logging.getLogger(__name__)

NAME = NodeName("keeper")
# Where it is reached, beneath its own folder of the state directory.
SOCKET_FILE = "run/keeper.sock"
LOG_FILE = "log"  # beneath it, too


async def wait_keeper(
    ready: int | None, state: str | None, ours: Identity
) -> KeeperPlace | None:
    """Return where our keeper is once it is up; None if it does not come up."""
    if ready is None:
        return None
    try:
        with trio.move_on_after(limits.KEEPER_UP_AFTER):
            await trio.lowlevel.wait_readable(ready)
    finally:
        os.close(ready)
    folder = state_root(state) / KEEPER
    if not (folder / SOCKET_FILE).exists():
        _log.warning(
            "the keeper of this master did not come up; %s may say why.  %s",
            folder / LOG_FILE,
            WITHOUT_KEEPER,
        )
        return None
    key_id = load_or_make(folder, NAME).key_id
    network = LocalNetwork(connect=partial(connected, folder / SOCKET_FILE, None))
    return keeper_place(HERE, key_id, ours=ours, network=network)


def keeper_place(
    address: Address, keeper: KeyId, *, ours: Identity, network: Network
) -> KeeperPlace:
    """Return how a master reaches a keeper: ours, or one that it inherits."""
    return KeeperPlace(
        network=network,
        address=address,
        key_id=keeper,
        shaker=leap_shakers(Role.MASTER, NodeName(ours.name), ours),
        desk=desk_of(Role.MASTER, [keeper]),
    )


class KeeperWord:
    """Our signed word of where a keeper is, for workers to hand on to our heirs."""

    def __init__(self, ours: Identity) -> None:
        self._ours = ours

    def __call__(self, address: Address, key_id: KeyId) -> wire.Keeper:
        """Return it for a keeper of this key that listens there."""
        return wire.Keeper(
            address=str(address),
            key=str(key_id),
            master=self._ours.public.raw,
            sig=self._ours.sign(statement(address, key_id)),
        )


def leap_shakers(
    role: Role, name: NodeName, identity: Identity
) -> Callable[[Doorman], Shaker]:
    """Return what shakes hands between a master and a keeper.

    Their keys are all that counts between them, whatever mode the master has.
    """
    ours = Ourselves(
        role=role, name=name, key_id=identity.key_id, mode=Mode.LEAP, run=new_run()
    )
    return shakers(ours, identity)


def desk_of(role: Role, trusted: Iterable[KeyId]) -> TrustDesk:
    """Return a desk that trusts these keys and nobody else, and asks no one."""
    policy = TrustPolicy(role=role, trusted_keys=frozenset(trusted))
    return TrustDesk(policy, folder=None, wall=time.time)
