"""What the control API shows: plain values, the same in JSON, Python and tables."""

from __future__ import annotations

from dataclasses import dataclass, field

from aemesh.model.group import Demand, Progress, Receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class PortsView:
    """How the ports of a worker's engine are reached by the other members."""

    way: str  # direct, or forwarded: through the master
    why: str
    since: float  # seconds since 1970
    bytes: int = 0  # that were carried, both ways
    connections: int = 0  # that were carried, or are
    open: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker as its master sees it."""

    name: str
    key: str  # SHA256:…
    words: str
    state: str  # a `MemberState`, by value
    trust: str  # known, pending, refused, open, imposter
    address: str
    group: str | None
    generation: int
    cores: int
    memory: int  # bytes
    note: str = ""  # why it is not working, if it is not
    since: float = 0.0  # seconds since 1970 when it came into this state
    held_by: str = ""  # the name of the master that holds it, "" if it is free
    held_key: str = ""  # SHA256:… of that master
    held_group: str | None = None  # its group, if we may know it
    until: float = 0.0  # seconds since 1970 when it leaves; 0.0 if nothing is agreed
    placed: str | None = None  # the group where it is to be, by the plan of the moment
    why: str = ""  # the reason of that
    labels: tuple[str, ...] = ()
    spares: int = 0  # processes there that wait for a group
    spare_memory: int = 0  # bytes that these take (PSS)
    ports: PortsView | None = None  # while it serves a group


@dataclass(frozen=True, slots=True, kw_only=True)
class DepartureView:
    """How a worker's departure stands, as the worker itself tells it."""

    state: str  # stays, agreed, leaving, parting, left
    end: float  # seconds since 1970; 0.0 if nothing is agreed
    haste: str  # late, soon, now; "" if nothing is agreed
    progress: Progress
    receipt: Receipt | None = None  # at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """One group: its engine and its members."""

    name: str
    engine: str
    state: str  # opening, ready, failed, closing
    members: tuple[str, ...]
    cores: int
    address: str  # where the engine's head is reached, "" if it is not up
    note: str = ""
    demand: Demand = field(default_factory=Demand)
    missing: int = 0  # workers, to its min
    held: int = 0  # how many hold it at its size


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldMember:
    """A member of a group that is held: where it is, and what may be used there."""

    name: str
    label: str  # that no other member of the group ever had
    address: str  # without a port
    cores: int
    memory: int  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldView:
    """Who is in a group that is held, now."""

    group: str
    address: str  # where members reach the master's machine
    members: tuple[HeldMember, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedView:
    """One worker as a group sees it: where it is, and why it is there or not here."""

    worker: str
    key: str  # SHA256:…
    group: str | None  # that it serves
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatusView:
    """All about one group: what it wants, who serves it, who does not and why."""

    group: GroupView
    members: tuple[PlacedView, ...]
    refused: tuple[PlacedView, ...]  # that do not serve it
    history: tuple[EventView, ...]  # its latest


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveView:
    """How one worker's move went: a receipt, or the fields of an error."""

    worker: str
    receipt: Receipt | None = None
    error: dict[str, str | int | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImposterView:
    """Somebody who pretended to be a worker and could not prove it.

    `addresses` are where the lie points to: what the forged records said, or where
    another key answered.  From where a forged packet came is not known.
    """

    name: str  # that is claimed, escaped
    key: str  # SHA256:… that is claimed, or that answered; "" if it named none
    addresses: tuple[str, ...]  # the latest first
    reason: str
    first_at: float  # seconds since 1970
    last_at: float
    times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusView:
    """The master itself."""

    name: str
    key: str
    words: str
    mode: str
    version: str
    pid: int
    state_dir: str
    listening: tuple[str, ...]
    started_at: float  # seconds since 1970
    workers: tuple[WorkerView, ...]
    groups: tuple[GroupView, ...]
    imposters: tuple[ImposterView, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectView:
    """What a client's environment needs; ``{tls}`` is its own TLS folder."""

    group: str
    engine: str
    env: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateView:
    """A client's certificate for one group, and the group's authority, as PEM."""

    certificate: str
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delegate:
    """What a user asks: hand my identity on; with a `life_after` of 0, no more.

    `source` is the file of the user's credential, on the machine of client and master.
    A wish that is not `lasting` is of one script: its end brings back what was before.
    """

    life_after: float
    lasting: bool = True
    source: str = ""
    passphrase: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationView:
    """Whose identity a group's jobs get, if any."""

    group: str
    subject: str = ""  # "" if nobody's
    life_after: float = 0.0  # seconds, from the start of each job
    until: float = 0.0  # seconds since 1970: the end of what it is made from


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputView:
    """A piece of one member's output (`data` is base64), or its exit."""

    worker: str
    channel: str = ""  # stdout, stderr; "" with an exit
    data: str = ""
    code: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventView:
    """One line of the history; `number` rises by one."""

    number: int
    at: float  # seconds since 1970
    kind: str
    text: str
    worker: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientJobView:
    """One script that was started with ``aemesh run --detach``."""

    id: str
    state: str  # running, done, failed, lost; elsewhere: ask on `host`
    code: int | None  # its exit code, once it has ended and was seen to
    script: str
    args: tuple[str, ...]
    group: str | None  # None: on this machine alone
    host: str
    cwd: str
    pid: int  # of its supervisor
    started_at: float  # seconds since 1970
    ended_at: float | None
    age_after: float  # seconds from its start to its end, or until now
    folder: str  # where its files are
