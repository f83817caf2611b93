"""What the agents of both roles are put together from, in the same way."""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from aemesh.cli import ui
from aemesh.cli.settings import typed
from aemesh.cli.spans import shown_span
from aemesh.errors import BadMessage, SettingsError, UsageError
from aemesh.host.guard import Guard, Notice
from aemesh.host.keys.keystore import Identity, load_or_make
from aemesh.host.keys.nextkey import NextKey, read_next
from aemesh.host.site.x509credentials import (
    X509Credentials,
    as_certified,
    read_credentials,
)
from aemesh.host.site.x509files import read_anchors
from aemesh.host.trust.auditlog import AuditLog
from aemesh.host.trust.trustdesk import Ask, TrustDesk
from aemesh.model.names import NodeName, node_name_untrusted
from aemesh.model.trust import Mode, Role, TrustRequest
from aemesh.net.doorman import MakeGss
from aemesh.net.interfaces import every_host
from aemesh.net.shake import Shaker, shakers
from aemesh.net.wallclock import new_run
from aemesh.policy.openness import OPEN_WARNING, OPEN_WARNING_ROOT, check_open_allowed
from aemesh.protocol.hello import Ourselves

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aemesh.cli.settings import NodeOptions
    from aemesh.host.jobs import JobRunner
    from aemesh.host.statedir import StateDir
    from aemesh.model.jointoken import JoinToken
    from aemesh.net.doorman import Doorman
    from aemesh.policy.trust import TrustPolicy

# A node that is open says so again, for whoever looks at the terminal later.
_WARN_AGAIN_AFTER = 3600.0
# A certificate of a year is renewed in its last month.
_RENEW_WITHIN = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Node:
    """One of us: who we are, and who decides for us."""

    role: Role
    name: NodeName
    identity: Identity
    mode: Mode
    desk: TrustDesk
    folder: Path
    run: str  # of this process, in announcement and HELLO
    certified: X509Credentials | None = None  # in mode x509
    gss: MakeGss | None = None  # in mode gss

    def shakers(self) -> Callable[[Doorman], Shaker]:
        """Return what makes a `Shaker` for one handshake."""
        ours = Ourselves(
            role=self.role,
            name=self.name,
            key_id=self.identity.key_id,
            mode=self.mode,
            run=self.run,
        )
        if self.certified is None:
            return shakers(ours, self.identity, gss=self.gss)
        ours = as_certified(ours, self.certified, self.identity)
        return shakers(ours, self.certified)

    def next_key(self) -> NextKey | None:
        """Return the key that we shall have, if `aemesh key rotate` made one."""
        return read_next(self.folder, self.name)


def make_node(
    state: StateDir,
    options: NodeOptions,
    policy: TrustPolicy,
    *,
    token: JoinToken | None = None,
    gss: Callable[[NodeName], MakeGss] | None = None,
) -> Node:
    """Return the node of a state directory; makes its key at the first start.

    `gss` makes a party of Kerberos for a node of our name, in mode gss.
    """
    if options.insecure_open:
        check_open_allowed(sorted(every_host()))
    if options.x509 is not None and policy.mode is not Mode.X509:
        msg = f"--x509 is for certificates, and the mode is {policy.mode.value}"
        raise UsageError(msg, hint="add --auth x509, or leave --x509 out")
    certified = x509 = None
    if policy.mode is Mode.X509:
        identity = load_or_make(state.folder, policy.role.value)
        x509 = _x509_folder(state, options)
        certified = _certificate(x509, policy.role, identity)
        name = _certified_name(certified, given_name(options.name))
    else:
        name = node_name(options.name)
        identity = load_or_make(state.folder, name)
    desk = TrustDesk(
        policy,
        folder=state.folder,
        wall=time.time,
        audit=AuditLog(state.folder),
        alarm=ui.alarm,
        token=token,
        x509=x509,
    )
    return Node(
        role=policy.role,
        name=name,
        identity=identity,
        mode=policy.mode,
        desk=desk,
        folder=state.folder,
        run=new_run(),
        certified=certified,
        gss=gss(name) if gss and policy.mode is Mode.GSS else None,
    )


def _x509_folder(state: StateDir, options: NodeOptions) -> Path:
    return Path(options.x509) if options.x509 else state.folder / "x509"


def _certificate(folder: Path, role: Role, identity: Identity) -> X509Credentials:
    """Return our certificate, with all that is read beside it checked at the start."""
    read_anchors(folder, role.other)
    return read_credentials(folder, role, identity, now=time.time())


def _certified_name(certified: X509Credentials, given: NodeName | None) -> NodeName:
    """Return the name that our certificate says; `--name` may only repeat it."""
    name = certified.claim.name
    if given not in (None, name):
        msg = f"the certificate is of {name}, not of {given}"
        raise UsageError(msg, hint="leave --name out, or have that name certified")
    return name


def given_name(given: str | None) -> NodeName | None:
    """Return the name of ``--name``, None without one."""
    if given is None:
        return None
    with typed():
        return node_name_untrusted(given)


def node_name(given: str | None) -> NodeName:
    """Return the name to go by: the given one, or the machine's without its domain."""
    name = given_name(given)
    if name is not None:
        return name
    try:
        return node_name_untrusted(socket.gethostname().partition(".")[0])
    except BadMessage as error:
        msg = "this machine's name cannot be ours"
        raise SettingsError(msg, why=error.what, hint="give one: `--name`") from None


def start_logging(*, verbose: bool) -> None:
    """Let the log of ours go to the terminal, below any question that is open."""
    handler = _UiHandler()
    ours = logging.getLogger("aemesh")
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG if verbose else logging.INFO)
    ours.propagate = False


async def warn_open(options: NodeOptions) -> None:
    """Say loudly, now and every hour, that nobody is authenticated."""
    if not options.insecure_open:
        return
    while True:
        ui.warn(OPEN_WARNING)
        if os.geteuid() == 0:
            ui.warn(OPEN_WARNING_ROOT)
        await trio.sleep(_WARN_AGAIN_AFTER)


async def obey(
    guard: Guard,
    jobs: JobRunner,
    *,
    leave: Callable[[str], None],
    scope: trio.CancelScope,
    orphaned: Callable[[], None] | None = None,
) -> None:
    """Leave when we are told to; at once when told twice, or when the warden died.

    With `orphaned` that is done then, and not expected to return.
    """
    leaving = False
    while True:
        notice = await guard.receive()
        if notice is Notice.ORPHANED and orphaned is not None:
            orphaned()
        if notice is Notice.ORPHANED:
            jobs.end_all(term_after=0, reason="the warden was killed")
        if leaving or notice is Notice.ORPHANED:
            scope.cancel()
            return
        leaving = True
        ui.stop_asking()
        ui.say("leaving; once more to leave at once")
        leave("its owner stopped it")


async def end_when_idle(
    wait_idle: Callable[[float], Awaitable[None]],
    exit_after: float | None,
    *,
    why: str,
    leave: Callable[[str], None],
) -> None:
    """Leave once `wait_idle` returns, if a span was given; say `why`."""
    if exit_after is None:
        return
    await wait_idle(exit_after)
    reason = f"{why} for {shown_span(exit_after)}"
    ui.say(f"leaving: {reason}")
    leave(reason)


def ask_for(question: Callable[[TrustRequest], str]) -> Ask | None:
    """Return how a person is asked, or None without a terminal."""
    if not ui.can_ask():
        return None

    async def ask(request: TrustRequest) -> bool | None:
        return await ui.ask(question(request))

    return ask


def request_text(request: TrustRequest) -> str:
    """Return what identifies whoever asks, and the question that ends with it.

    The code of a meeting proves more than the words of a key: only these are shown.
    """
    key_id = request.key.key_id
    tries = f" (meeting {request.tries} of late)" if request.tries > 1 else ""
    if request.code:
        return f'{key_id} — both sides show "{request.code}"{tries}; trust it?'
    return f'{key_id} "{key_id.words}" — trust it?'


def greet_site(node: Node) -> None:
    """Say by what a site knows this node; warn before that ends."""
    if node.certified is None:
        ui.say("Kerberos says who may come; nobody is asked")
        return
    ends_at = node.certified.ends_at
    until = time.strftime("%Y-%m-%d", time.localtime(ends_at))
    ui.say(f"certified as {node.certified.claim.identity} until {until}")
    if ends_at - time.time() < _RENEW_WITHIN:
        ui.warn(f"the certificate ends on {until}: have it renewed by the site's CA")


class _UiHandler(logging.Handler):
    """The log on the terminal: one line a record, with the time of day."""

    def emit(self, record: logging.LogRecord) -> None:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        ui.say(f"{moment} {record.getMessage()}")
        if record.exc_info:
            ui.tell(logging.Formatter().formatException(record.exc_info))
