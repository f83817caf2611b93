"""A real worker, put together from its parts."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from aemesh.cli import ui
from aemesh.cli.announcing import Announcing, Finder
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
from aemesh.cli.receipts import receipt_line
from aemesh.cli.settings import typed
from aemesh.errors import UsageError
from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.host.facts import find_facts
from aemesh.host.generation import read_generation, write_generation
from aemesh.host.trust.auditlog import local_user
from aemesh.host.trust.trustoptions import terms_untrusted
from aemesh.host.warmnodes import WarmNodes
from aemesh.model.address import Seed
from aemesh.model.counted import counted
from aemesh.model.group import Haste
from aemesh.model.machine import Forward
from aemesh.model.trust import Mode, Role, TrustRequest
from aemesh.net import gss
from aemesh.net.discovery import LanDiscovery, open_discovery
from aemesh.net.tcp import DEFAULT_PORT, TcpNetwork
from aemesh.net.wallclock import chance
from aemesh.policy.outreach import seeks
from aemesh.policy.trust import TrustPolicy
from aemesh.tasks.nursery import open_crew
from aemesh.worker.control import serve_control
from aemesh.worker.outreach import Nobody
from aemesh.worker.worker import Parts, Silence, Worker

if TYPE_CHECKING:
    from aemesh.cli.settings import WorkerOptions
    from aemesh.host.guard import Guard
    from aemesh.host.jobs import JobRunner
    from aemesh.host.statedir import StateDir
    from aemesh.model.jointoken import JoinToken
    from aemesh.model.key import KeyId
    from aemesh.model.machine import Facts
    from aemesh.model.names import NodeName
    from aemesh.model.trust import Peer
    from aemesh.net.doorman import GssParty, MakeGss

_INTERRUPTED = 130


async def run(
    options: WorkerOptions, state: StateDir, guard: Guard, jobs: JobRunner
) -> int:
    """Run a worker until it is told to leave; return the exit code."""
    start_logging(verbose=options.verbose)
    code = _INTERRUPTED
    async with open_crew() as crew:
        token = options.join
        policy = _policy(options, by_token=token is not None)
        keytab = options.keytab
        node = make_node(
            state, options, policy, token=token, gss=partial(_accept_gss, keytab)
        )
        if policy.mode is Mode.GSS:
            await gss.check_keytab(gss.service_of(node.name), keytab)
        seeds = _seeds(options)
        facts = _facts(options)
        _greet(node, facts)
        # Who is told where its master is says nothing on the network.
        async with nullcontext() if seeds else open_discovery() as discovery:
            worker = Worker(
                Parts(
                    shaker=node.shakers(),
                    desk=node.desk,
                    network=TcpNetwork(),
                    announcer=Announcing(node, discovery) if discovery else Silence(),
                    jobs=jobs,
                    warm=WarmNodes(jobs.warm),
                    facts=facts,
                    chance=chance,
                    generation=read_generation(state.folder),
                    remember_generation=partial(write_generation, state.folder),
                    groups=options.allowed_groups(),
                    next_key=node.next_key,
                    finder=_finder(node, discovery),
                    seeks=partial(_seeks, node, token),
                    seeds=seeds,
                    give_up_after=options.give_up_after,
                    lease_after=options.lease_after,
                    port=options.port,
                    hosts=(options.host,) if options.host else (),
                ),
                key_id=node.identity.key_id,
            )
            crew.start_soon(node.desk.run, ask_for(_question))
            crew.start_soon(warn_open, options)
            crew.start_soon(
                partial(obey, guard, jobs, leave=worker.leave, scope=crew.cancel_scope)
            )
            crew.start_soon(
                partial(
                    end_when_idle,
                    worker.wait_idle,
                    options.idle_exit,
                    why="no master held this machine",
                    leave=worker.leave,
                )
            )
            if options.until is not None:
                worker.parting.agree(options.until, Haste.LATE, "its time is over")
                ui.say(f"it leaves at {ui.moment(options.until)}")
            socket_path = state.folder / SOCKET_FILE
            await crew.start(partial(serve_control, worker.parting, socket_path))
            receipt = await worker.run()
            ui.say(receipt_line(receipt))
            code = 0
            crew.cancel_scope.cancel()
    return code


def _policy(options: WorkerOptions, *, by_token: bool) -> TrustPolicy:
    if by_token and options.mode is not Mode.LEAP:
        msg = f"a join token introduces keys; mode {options.mode.value} takes none"
        raise UsageError(msg, hint="leave --join out, or --auth")
    if options.keytab is not None and options.mode is not Mode.GSS:
        msg = f"--keytab is for Kerberos, and the mode is {options.mode.value}"
        raise UsageError(msg, hint="add --auth gss, or leave --keytab out")
    if options.enrol_from and options.enrol_after is None and not options.accept_first:
        msg = "--from limits whom --enrol lets in, and there is no --enrol"
        raise UsageError(msg, hint="add --enrol 10m, or leave --from out")
    enrol_until = None
    if options.enrol_after is not None:
        enrol_until = time.time() + options.enrol_after
    return TrustPolicy(
        role=Role.WORKER,
        mode=options.mode,
        trusted_keys=options.trusted_keys(),
        accept_first=options.accept_first or enrol_until is not None,
        enrol_until=enrol_until,
        enrol_from=_networks(options.enrol_from),
        user=local_user(),
        by_token=by_token,
    )


def _networks(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the networks of ``--from``, checked as those of a trust line are."""
    if not given:
        return ()
    with typed():
        return terms_untrusted({"from": ",".join(given)}).sources


def _accept_gss(keytab: str | None, name: NodeName) -> MakeGss:
    """Return what makes our party of Kerberos: the service of our name."""
    service = gss.service_of(name)

    def make(peer: Peer, binding: bytes) -> GssParty:
        del peer
        return gss.acceptor(service=service, binding=binding, keytab=keytab)

    return make


def _seeds(options: WorkerOptions) -> tuple[Seed, ...]:
    if options.masters and options.port:
        msg = "--port is where masters come in, and with --master none does"
        raise UsageError(msg, hint="leave --port out, or --master")
    with typed():
        return tuple(
            Seed.parse_untrusted(text, default_port=DEFAULT_PORT)
            for text in options.masters
        )


def _finder(node: Node, discovery: LanDiscovery | None) -> Finder | Nobody:
    return Nobody() if discovery is None else Finder(Role.MASTER, node, discovery)


def _seeks(node: Node, token: JoinToken | None, key_id: KeyId) -> bool:
    """Whether to dial a master that was heard of."""
    desk = node.desk
    return seeks(key_id, desk.book, desk.policy, token=token, now=time.time())


def _facts(options: WorkerOptions) -> Facts:
    facts = find_facts()
    labels = options.checked_labels()
    return replace(
        facts,
        cores=options.cores or facts.cores,
        labels=labels,
        forward=Forward(options.forward),
    )


def _greet(node: Node, facts: Facts) -> None:
    key_id = node.identity.key_id
    cores = counted(facts.cores, "core")
    ui.say(f'{node.name} offers {cores}; key {key_id} "{key_id.words}"')
    known = ", ".join(master.name for master in node.desk.book.known)
    if node.mode in (Mode.X509, Mode.GSS):
        greet_site(node)
    elif known:
        ui.say(f"it belongs to {known}")
    elif node.desk.policy.by_token:
        ui.say("it joins the master that gave out its token, and no other")
    elif node.desk.policy.accept_first:
        ui.warn("the first master that comes will be trusted, whoever it is")
    elif not ui.can_ask():
        ui.say("no terminal: `aemesh trust list` and `aemesh trust accept` serve")


def _question(request: TrustRequest) -> str:
    who = f"{request.name} at {request.address} wants to use this machine"
    return f"{who}: {request_text(request)}"
