"""What the command line says for an agent, of either role."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import BadMessage, UsageError
from aemesh.model.group import DemandChange
from aemesh.model.jointoken import JoinToken
from aemesh.model.key import KeyId
from aemesh.model.machine import Forward
from aemesh.model.names import GroupName, group_name_untrusted, label_untrusted
from aemesh.model.trust import Mode
from aemesh.model.view import Delegate

if TYPE_CHECKING:
    from collections.abc import Iterator

# The label of a worker whose jobs run in a sandbox; nobody else may have it.
_SANDBOX = "sandbox"


@contextmanager
def typed() -> Iterator[None]:
    """Blame the command line, not a peer, for a word that cannot be read."""
    try:
        yield
    except BadMessage as error:
        raise UsageError(error.what) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What the command line says for either role."""

    state: str | None = None
    name: str | None = None
    host: str | None = None
    insecure_open: bool = False
    auth: str = Mode.LEAP.value
    x509: str | None = None
    verbose: bool = False
    trusted: tuple[str, ...] = ()
    idle_exit: float | None = None  # seconds

    @property
    def mode(self) -> Mode:
        """The mode that this node requires; raises `UsageError` if it is two."""
        if not self.insecure_open:
            return Mode(self.auth)
        if self.auth != Mode.LEAP.value:
            msg = f"--insecure-open and --auth {self.auth} exclude each other"
            raise UsageError(msg)
        return Mode.OPEN

    def trusted_keys(self) -> frozenset[KeyId]:
        """Return the keys given on the command line."""
        with typed():
            return frozenset(KeyId.parse_untrusted(text) for text in self.trusted)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerOptions(NodeOptions):
    """What the command line of ``aemesh worker`` says."""

    port: int = 0
    cores: int | None = None
    groups: tuple[str, ...] = ()
    more_groups: str | None = None
    labels: tuple[str, ...] = ()
    accept_first: bool = False
    enrol_after: float | None = None
    enrol_from: tuple[str, ...] = ()
    join: JoinToken | None = None
    keytab: str | None = None
    until: float | None = None  # seconds since 1970
    masters: tuple[str, ...] = ()
    give_up_after: float | None = None
    lease_after: float | None = None
    spares: int = 1
    forward: str = Forward.AUTO.value
    sandbox: str = "none"

    def allowed_groups(self) -> frozenset[GroupName]:
        """Return the groups that may be served, none for any; raises `UsageError`."""
        listed = self.more_groups.split(",") if self.more_groups is not None else []
        with typed():
            names = (*self.groups, *(name.strip() for name in listed))
            return frozenset(map(group_name_untrusted, names))

    def checked_labels(self) -> tuple[str, ...]:
        """Return the labels, each once, in order; raises `UsageError`.

        That jobs run in a sandbox is one of them, so that groups can require it.
        """
        with typed():
            found = {label_untrusted(label) for label in self.labels}
        if self.sandbox != "none":
            found.add(_SANDBOX)
        elif _SANDBOX in found:
            msg = f"--label {_SANDBOX} says that jobs run in a sandbox, and they do not"
            raise UsageError(msg, hint="--sandbox bwrap gives them one, and the label")
        labels = tuple(sorted(found))
        if len(labels) > limits.LABELS:
            msg = f"a worker has at most {limits.LABELS} labels"
            raise UsageError(msg, why=f"{len(labels)} were given")
        return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterOptions(NodeOptions):
    """What the command line of ``aemesh master`` says."""

    groups: tuple[str, ...] = ()
    engine: str = "dask"
    demand: DemandChange | None = None  # of the groups that are named
    accept_new: bool = False
    port: int = 0
    no_listen: bool = False
    delegate: Delegate | None = None
    kept_after: float | None = None
    heirs: tuple[str, ...] = ()
    adopt: str | None = None
    keeper: int | None = None  # a descriptor that tells when our keeper is up
    spares: int = 1  # of heads

    def heir_keys(self) -> tuple[KeyId, ...]:
        """Return the keys of the masters that may take over."""
        return _keys(self.heirs)

    def adopts_key(self) -> KeyId | None:
        """Return the key of the master that we take over from."""
        return _keys((self.adopt,))[0] if self.adopt else None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperOptions:
    """What a master's command line says for its keeper."""

    ready: int  # a descriptor to say on that it is up
    state: str | None = None
    engine: str = "dask"
    host: str | None = None
    heirs: tuple[str, ...] = ()
    verbose: bool = False
    spares: int = 1

    def heir_keys(self) -> tuple[KeyId, ...]:
        """Return the keys of the masters that may take over."""
        return _keys(self.heirs)


def _keys(given: tuple[str, ...]) -> tuple[KeyId, ...]:
    with typed():
        return tuple(KeyId.parse_untrusted(text) for text in given)
