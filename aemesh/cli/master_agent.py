"""A real master, put together from its parts."""

from __future__ import annotations

import ipaddress
import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aemesh import __version__, limits
from aemesh.cli import ui
from aemesh.cli.announcing import Announcing, Finder
from aemesh.cli.keeping import KeeperWord, keeper_place, wait_keeper
from aemesh.cli.node import (
    Node,
    ask_for,
    end_when_idle,
    greet_site,
    make_node,
    obey,
    request_text,
    start_logging,
    warn_open,
)
from aemesh.cli.settings import typed
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.jobs import JobRunner
from aemesh.host.ledger.ledger import Ledger, open_ledger
from aemesh.host.livefolder import live_folders
from aemesh.host.plugins import find_engine
from aemesh.host.site.usercredential import read_credential
from aemesh.host.statedir import clients_folder
from aemesh.host.store import Store, open_store
from aemesh.host.warden import end_all_below
from aemesh.master.control import serve_control
from aemesh.master.control_wire import SetGroup
from aemesh.master.delegation import Delegation, check_mode
from aemesh.master.master import Master
from aemesh.master.parts import Parts
from aemesh.master.tuning import check_settings
from aemesh.model.names import GroupName, group_name_untrusted
from aemesh.model.trust import Mode, Role, TrustRequest
from aemesh.net import gss
from aemesh.net.discovery import open_discovery
from aemesh.net.interfaces import local_addresses
from aemesh.net.tcp import TcpNetwork, check_ours
from aemesh.net.wallclock import chance
from aemesh.policy.demand import check_demand
from aemesh.policy.trust import TrustPolicy
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.cli.settings import MasterOptions
    from aemesh.host.guard import Guard
    from aemesh.host.statedir import StateDir
    from aemesh.master.keeper import KeeperPlace
    from aemesh.model.names import NodeName
    from aemesh.model.trust import Peer
    from aemesh.net.discovery import LanDiscovery
    from aemesh.net.doorman import GssParty, MakeGss

_INTERRUPTED = 130
_DEFAULT_GROUP = GroupName("default")


async def run(
    options: MasterOptions, state: StateDir, guard: Guard, jobs: JobRunner
) -> int:
    """Run a master until it is told to end; return the exit code."""
    start_logging(verbose=options.verbose)
    ledger = open_ledger(state.folder / "ledger", wall=time.time)
    with open_store(state.folder / "state.sqlite") as store, ledger as kept:
        return await _run(options, state, guard, _Held(jobs, store, kept))


@dataclass(frozen=True, slots=True)
class _Held:
    """What a master holds as long as it runs."""

    jobs: JobRunner
    store: Store
    ledger: Ledger


async def _run(
    options: MasterOptions, state: StateDir, guard: Guard, held: _Held
) -> int:
    code = _INTERRUPTED
    async with open_crew() as crew:
        policy = _policy(options)
        node = make_node(state, options, policy, gss=_initiate_gss)
        if policy.mode is Mode.GSS:
            await gss.check_user()
        if options.host is not None:
            check_ours(options.host)
        _remember_groups(held.store, options)
        keeper = await wait_keeper(options.keeper, options.state, node.identity)
        async with open_discovery() as discovery:
            parts = _parts(node, options, discovery, keeper)
            master = Master(
                parts(
                    jobs=held.jobs,
                    store=held.store,
                    ledger=held.ledger,
                    has_clients=partial(_has_clients, state),
                )
            )
            crew.start_soon(node.desk.run, ask_for(_question))
            crew.start_soon(warn_open, options)

            def leave(_reason: str) -> None:
                master.stop()

            scope = crew.cancel_scope
            crew.start_soon(
                partial(
                    obey, guard, held.jobs, leave=leave, scope=scope, orphaned=_fall
                )
            )
            socket = state.folder / SOCKET_FILE
            await crew.start(
                partial(serve_control, master, socket, requests=master.requests)
            )
            why = "nobody used this master"
            idle = options.idle_exit
            crew.start_soon(
                partial(end_when_idle, master.wait_idle, idle, why=why, leave=leave)
            )
            _greet(node, held.store)
            await master.run()
            ui.say("the master has ended")
            code = 0
            crew.cancel_scope.cancel()
    return code


def _parts(
    node: Node,
    options: MasterOptions,
    discovery: LanDiscovery,
    keeper: KeeperPlace | None,
) -> Callable[..., Parts]:
    """Return what makes the parts of a master; its state is still to be given."""
    head_address = HeadAddress(options.host)
    network = TcpNetwork()
    return partial(
        Parts,
        key_id=node.identity.key_id,
        name=node.name,
        mode=node.mode.value,
        version=__version__,
        state_dir=str(node.folder),
        shaker=node.shakers(),
        desk=node.desk,
        network=network,
        finder=Finder(Role.WORKER, node, discovery),
        engines=find_engine,
        head_address=head_address,
        wall=time.time,
        wait_move=discovery.wait_move,
        next_key=node.next_key,
        delegation=_delegation(options),
        keeper=keeper,
        kept_after=options.kept_after or limits.LEASE_KEPT_AFTER,
        heirs=options.heir_keys(),
        adopts=options.adopts_key(),
        inherit=partial(keeper_place, ours=node.identity, network=network),
        word=KeeperWord(node.identity),
        port=None if options.no_listen else options.port,
        hosts=(options.host,) if options.host else (),
        announcer=Announcing(node, discovery),
        chance=chance,
        addresses=partial(_addresses, options.host),
    )


def _has_clients(state: StateDir) -> bool:
    """Whether a script or notebook that lives uses us, busy or not."""
    return bool(live_folders(clients_folder(state.folder.parent)))


class HeadAddress:
    """Our address for engines' heads: the one of before, so long as we have it.

    What stays away for a moment, without a network, does not take its place.
    """

    def __init__(self, given: str | None = None) -> None:
        self._given = given
        self._now = ""

    def __call__(self) -> str:
        """Return it; private IPv4 before all else."""
        if self._given is not None:
            return self._given
        hosts = [one.host for one in local_addresses() if "%" not in one.host]
        if self._now not in hosts and (hosts or not self._now):
            self._now = _best(hosts)
        return self._now


def _addresses(given: str | None) -> tuple[str, ...]:
    """Return where workers reach us."""
    if given is not None:
        return (given,)
    return tuple(dict.fromkeys(one.host for one in local_addresses()))


def _best(hosts: list[str]) -> str:
    private = [host for host in hosts if ipaddress.ip_address(host).is_private]
    v4 = [host for host in private if ":" not in host]
    return (v4 or private or ["127.0.0.1"])[0]


def _fall() -> None:
    """Go as if we had been killed, for our warden was.

    To say good-bye would end the engines; they can wait for the next master.
    """
    end_all_below()
    os._exit(1)


def _remember_groups(store: Store, options: MasterOptions) -> None:
    """Add the groups of the command line to those of the last time."""
    with typed():
        names = [group_name_untrusted(name) for name in options.groups]
    if not names and not store.groups() and options.adopt is None:
        names = [_DEFAULT_GROUP]
    for name in names:
        store.put_group(name, options.engine)
        if options.demand:
            demand = check_demand(SetGroup(**options.demand).on(store.demand(name)))
            check_settings(find_engine(options.engine), demand.settings)
            store.put_demand(name, demand)


def _delegation(options: MasterOptions) -> Delegation | None:
    """Return the user's identity for all groups, if it is to be handed on."""
    wish = options.delegate
    if wish is None:
        return None
    check_mode(options.mode.value)
    credential = read_credential(Path(wish.source), passphrase=wish.passphrase)
    ui.say(
        f"jobs act as {credential.subject}, for {wish.life_after / 3600:g} hours each"
    )
    return Delegation(credential, wish.life_after)


def _policy(options: MasterOptions) -> TrustPolicy:
    return TrustPolicy(
        role=Role.MASTER,
        mode=options.mode,
        trusted_keys=options.trusted_keys(),
        accept_new=options.accept_new,
    )


def _initiate_gss(name: NodeName) -> MakeGss:
    """Return what makes our party of Kerberos: the user's ticket for the peer."""
    del name  # a master is its user

    def make(peer: Peer, binding: bytes) -> GssParty:
        return gss.initiator(target=gss.service_of(peer.name), binding=binding)

    return make


def _greet(node: Node, store: Store) -> None:
    key_id = node.identity.key_id
    groups = ", ".join(sorted(store.groups()))
    ui.say(f'{node.name} is master of {groups}; key {key_id} "{key_id.words}"')
    if node.mode in (Mode.X509, Mode.GSS):
        greet_site(node)
    elif not ui.can_ask() and not node.desk.policy.accept_new:
        ui.say("no terminal: `aemesh trust list` and `aemesh trust accept` serve")


def _question(request: TrustRequest) -> str:
    return f"{request.name} wants to join: {request_text(request)}"
