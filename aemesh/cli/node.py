"""What the agents of both roles are put together from, in the same way."""

from __future__ import annotations

import logging
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from aemesh.cli import ui
from aemesh.cli.settings import typed
from aemesh.errors import BadMessage, SettingsError
from aemesh.host.auditlog import AuditLog
from aemesh.host.guard import Guard, Notice
from aemesh.host.keystore import Identity, load_or_make
from aemesh.host.trustdesk import Ask, TrustDesk
from aemesh.model.names import NodeName, node_name_untrusted
from aemesh.model.trust import Mode, Role, TrustRequest
from aemesh.net.interfaces import every_host
from aemesh.net.shake import Shaker, shakers
from aemesh.policy.openness import OPEN_WARNING, OPEN_WARNING_ROOT, check_open_allowed
from aemesh.protocol.hello import Ourselves

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.cli.settings import NodeOptions
    from aemesh.host.jobs import JobRunner
    from aemesh.host.statedir import StateDir
    from aemesh.net.doorman import Doorman
    from aemesh.policy.trust import TrustPolicy

# A node that is open says so again, for whoever looks at the terminal later.
_WARN_AGAIN_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class Node:
    """One of us: who we are, and who decides for us."""

    role: Role
    name: NodeName
    identity: Identity
    mode: Mode
    desk: TrustDesk

    def shakers(self) -> Callable[[Doorman], Shaker]:
        """Return what makes a `Shaker` for one handshake."""
        ours = Ourselves(
            role=self.role,
            name=self.name,
            key_id=self.identity.key_id,
            mode=self.mode,
        )
        return shakers(ours, self.identity)


def make_node(state: StateDir, options: NodeOptions, policy: TrustPolicy) -> Node:
    """Return the node of a state directory; makes its key at the first start."""
    name = node_name(options.name)
    if options.insecure_open:
        check_open_allowed(sorted(every_host()))
    identity = load_or_make(state.folder, name)
    desk = TrustDesk(
        policy,
        folder=state.folder,
        wall=time.time,
        audit=AuditLog(state.folder),
        alarm=ui.alarm,
    )
    return Node(policy.role, name, identity, policy.mode, desk)


def node_name(given: str | None) -> NodeName:
    """Return the name to go by: the given one, or the machine's without its domain."""
    if given is not None:
        with typed():
            return node_name_untrusted(given)
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
) -> None:
    """Leave when we are told to; at once when told twice, or when the warden died."""
    leaving = False
    while True:
        notice = await guard.receive()
        if notice is Notice.ORPHANED:
            jobs.end_all(term_after=0, reason="the warden was killed")
        if leaving or notice is Notice.ORPHANED:
            scope.cancel()
            return
        leaving = True
        ui.stop_asking()
        ui.say("leaving; once more to leave at once")
        leave("its owner stopped it")


def ask_for(question: Callable[[TrustRequest], str]) -> Ask | None:
    """Return how a person is asked, or None without a terminal."""
    if not ui.can_ask():
        return None

    async def ask(request: TrustRequest) -> bool | None:
        return await ui.ask(question(request))

    return ask


def request_text(request: TrustRequest) -> str:
    """Return what identifies whoever asks: fingerprint and words."""
    key_id = request.key.key_id
    return f'{key_id} "{key_id.words}"'


class _UiHandler(logging.Handler):
    """The log on the terminal: one line a record, with the time of day."""

    def emit(self, record: logging.LogRecord) -> None:
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        ui.say(f"{moment} {record.getMessage()}")
        if record.exc_info:
            ui.tell(logging.Formatter().formatException(record.exc_info))
