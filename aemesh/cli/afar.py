"""Asks a master on another machine: who we are then, and whom we trust."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.cli import ui
from aemesh.cli.node import make_node
from aemesh.cli.settings import NodeOptions, typed
from aemesh.client.afar import Afar, Far
from aemesh.host.statedir import StateDir, state_folder
from aemesh.model.address import Seed
from aemesh.model.trust import Role
from aemesh.net.tcp import DEFAULT_PORT, TcpNetwork
from aemesh.policy.trust import TrustPolicy

if TYPE_CHECKING:
    from aemesh.model.trust import Peer


def master_at(
    place: str, *, state: str | None, trusted: tuple[str, ...], auth: str
) -> Afar:
    """Return the master at HOST:PORT; we ask with the key of this machine's worker."""
    with typed():
        seed = Seed.parse_untrusted(place, default_port=DEFAULT_PORT)
    options = NodeOptions(state=state, auth=auth, trusted=trusted)
    policy = TrustPolicy(
        role=Role.WORKER, mode=options.mode, trusted_keys=options.trusted_keys()
    )
    # Not held: that worker may run beside us.
    folder = StateDir(Role.WORKER, state_folder(Role.WORKER, state))
    node = make_node(folder, options, policy)
    return Afar(
        Far(
            seed=seed,
            network=TcpNetwork(),
            shaker=node.shakers(),
            desk=node.desk,
            waits=_Waits(str(node.identity.key_id)),
        )
    )


class _Waits:
    """Tells a person, once, that somebody has to accept our key at the master."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._told = False

    def __call__(self, peer: Peer) -> None:
        if self._told:
            return
        self._told = True
        code = f'; both sides show "{peer.code}"' if peer.code else ""
        ui.say(f"{peer.name} does not know our key {self._key} yet{code}")
        ui.say("there, `aemesh trust accept ID --observe` lets us ask")
