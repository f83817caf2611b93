"""Messages as they are on the wire; whoever handles one makes our nouns of it.

A frame holds one envelope: ``{"t": type, "n": request, "re": reply to, "b": body}``.
`n` is there if an answer is expected; `re` repeats it in the answer.  Fields that we
do not know are passed over, so that a newer peer can say more; types that we do not
know are answered ``unsupported``.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from aemesh import limits

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Text = Annotated[str, Meta(max_length=1000)]
Pem = Annotated[str, Meta(max_length=16384)]
Place = Annotated[str, Meta(min_length=3, max_length=80)]  # ADDRESS:PORT
Chain = Annotated[str, Meta(max_length=limits.PROXY_BYTES)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Arg = Annotated[str, Meta(max_length=limits.JOB_ARG_BYTES)]
Module = Annotated[str, Meta(min_length=1, max_length=limits.MODULE_LENGTH)]
Modules = Annotated[tuple[Module, ...], Meta(max_length=limits.PRELOADS)]
Nonce = Annotated[str, Meta(min_length=32, max_length=32)]
Digest = Annotated[str, Meta(min_length=64, max_length=64)]
Certificate = Annotated[str, Meta(max_length=limits.PREAMBLE_CERT_BYTES * 4 // 3 + 4)]
Span = Annotated[float, Meta(ge=0.0, le=366 * 86400.0)]


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in an envelope."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The outer form of every message."""

    t: Name
    n: Count = 0
    re: Count = 0
    b: dict[str, object] = {}


class Hello(Body, frozen=True, kw_only=True):
    """Who I am, who I think you are, and what I require; the first on either side."""

    v: Count
    role: Name
    name: Name
    mode: Name
    me: Name
    you: Name
    pre: Digest
    nonce: Nonce
    now: Annotated[float, Meta(ge=0.0, le=2.0**53)]
    purpose: Name = "control"
    feat: Annotated[tuple[Name, ...], Meta(max_length=64)] = ()
    run: Annotated[str, Meta(max_length=16)] = ""
    asks: Annotated[tuple[Name, ...], Meta(max_length=8)] = ()
    chain: Annotated[
        tuple[Certificate, ...], Meta(max_length=limits.PREAMBLE_CERTS)
    ] = ()
    node: Annotated[str, Meta(max_length=64)] = ""
    node_sig: Annotated[str, Meta(max_length=128)] = ""


class Pair(Body, frozen=True, kw_only=True):
    """A step to the code that both sides show: commitment, nonce, nonce."""

    commit: Digest | None = None
    nonce: Nonce | None = None


class Join(Body, frozen=True, kw_only=True):
    """I know the secret of this join token; without `mac`, I do not."""

    token: Name
    mac: Digest | None = None


class Gss(Body, frozen=True, kw_only=True):
    """A token of GSS-API (RFC 2743), base64."""

    token: Annotated[str, Meta(max_length=limits.GSS_TOKEN_BYTES * 4 // 3 + 4)]


class VerdictBody(Body, frozen=True, kw_only=True):
    """What one side says of the other; may be said again until it is final."""

    decision: Name
    reason: Name
    detail: Text = ""


class Beat(Body, frozen=True, kw_only=True):
    """I am here; every message says so, this one nothing else."""


class Unsupported(Body, frozen=True, kw_only=True):
    """I do not know this type of message."""

    what: Name


class Failed(Body, frozen=True, kw_only=True):
    """What you asked was not done; `error` is a name of `aemesh.errors`."""

    error: Name
    what: Text


class Done(Body, frozen=True, kw_only=True):
    """What you asked was done."""


class Bye(Body, frozen=True, kw_only=True):
    """I close this link on purpose."""

    reason: Text = ""


class HeldBy(msgspec.Struct, frozen=True, kw_only=True):
    """Who holds a worker; `group` is empty where the listener may not know it."""

    master: Name  # its fingerprint
    name: Name
    group: Annotated[str, Meta(max_length=64)] = ""
    generation: Count


class WantedBy(msgspec.Struct, frozen=True, kw_only=True):
    """A master that wants the worker of another: its fingerprint, how many in all."""

    master: Name
    workers: Count


class WorkerFacts(Body, frozen=True, kw_only=True):
    """A worker tells its master what it is, and in which generation it is held.

    `groups` are those that its owner allows; none named means any.  `lease` is who
    holds it now; when that changes the facts are told again, with a higher `serial`.
    """

    cores: Count
    memory: Count
    python: Name
    system: Name
    generation: Count
    groups: Annotated[tuple[Name, ...], Meta(max_length=limits.GROUPS_ALLOWED)] = ()
    lease: HeldBy | None = None
    until_after: Span | None = None  # seconds until it leaves, as agreed
    serial: Count = 0
    wanted: Annotated[tuple[WantedBy, ...], Meta(max_length=limits.WISHES)] = ()
    over: bool = False
    waits: bool = False
    spares: Count = 0  # processes that wait for a group, and their bytes of memory
    spare_memory: Count = 0
    labels: Annotated[tuple[Name, ...], Meta(max_length=limits.LABELS)] = ()
    forward: Name = "auto"  # a `model.machine.Forward`, by value


class Keeper(msgspec.Struct, frozen=True, kw_only=True):
    """Where the heads of a master go on without it, and that master's word for it."""

    address: Place
    key: Name  # of the keeper, SHA256:…
    master: Annotated[bytes, Meta(max_length=32)]  # the public key that signed
    sig: Annotated[bytes, Meta(max_length=64)]


class Want(Body, frozen=True, kw_only=True):
    """I want so many workers, of all those that others hold; 0: none.  `Done`.

    The worker tells its holder, in its facts: `wanted`, and `over` if its owner's span
    of a lease is over.  `waits` is for who had it, while it is the turn of others.
    """

    workers: Count


class WarmKind(msgspec.Struct, frozen=True, kw_only=True):
    """A node that may be wanted: of this engine, with these modules imported."""

    engine: Name
    preload: Modules = ()


class Warm(Body, frozen=True, kw_only=True):
    """I may soon want nodes of these kinds of you, the likeliest first.  `Done`.

    How many wait is the worker's to say; what I said before no longer counts.
    """

    kinds: Annotated[tuple[WarmKind, ...], Meta(max_length=limits.WARM_KINDS)] = ()


class Assign(Body, frozen=True, kw_only=True):
    """You serve this group in this generation; answered by `Assigned`.

    When I am out of sight, wait `kept_after` for me or for one of my `heirs`.
    """

    group: Name
    generation: Count
    kept_after: Span = 0.0
    heirs: Annotated[tuple[Name, ...], Meta(max_length=limits.HEIRS)] = ()
    keeper: Keeper | None = None


class Assigned(Body, frozen=True, kw_only=True):
    """I do, and here is the request for my certificate in it.

    `host` is my own address on this link: there the engine's processes listen.  A
    keeper tells the port for heirs; 0 if it has none.
    """

    csr: Pem
    port: Count = 0
    host: Annotated[str, Meta(max_length=64)] = ""


class Orphaned(Body, frozen=True, kw_only=True):
    """I am held in this lease, and its master was out of sight; these jobs run.

    A notice to that master when it is back, and to its heirs while it is not.
    """

    master: Name
    group: Name
    generation: Count
    jobs: Annotated[tuple[Name, ...], Meta(max_length=limits.JOBS_PER_WORKER)] = ()
    keeper: Keeper | None = None


class Adopt(Body, frozen=True, kw_only=True):
    """Go on with this lease, for me, on my own terms; answered by `Assigned`.

    Without `kept_after` its terms stay as they are.
    """

    group: Name
    generation: Count
    kept_after: Span | None = None
    heirs: Annotated[tuple[Name, ...], Meta(max_length=limits.HEIRS)] = ()
    keeper: Keeper | None = None


class Keep(Body, frozen=True, kw_only=True):
    """Keep this for whoever adopts what I leave; no data: forget it.  `Done`."""

    key: Annotated[str, Meta(min_length=1, max_length=limits.KEPT_KEY_LENGTH)]
    data: Annotated[str, Meta(max_length=limits.KEPT_BYTES)] = ""


class Recall(Body, frozen=True, kw_only=True):
    """Tell what was kept, behind this key in order; answered by `Recalled`."""

    after: Annotated[str, Meta(max_length=limits.KEPT_KEY_LENGTH)] = ""


class Recalled(Body, frozen=True, kw_only=True):
    """A page of what was kept; an empty one is the end."""

    entries: Annotated[tuple[Keep, ...], Meta(max_length=limits.KEPT_PAGE)] = ()


class Release(Body, frozen=True, kw_only=True):
    """The generation is over; end its jobs.  Answered when they are gone.

    With `again` the lease stays mine: I assign it anew, or release it once more.
    """

    generation: Count
    term_after: Span
    again: bool = False


class Delegate(Body, frozen=True, kw_only=True):
    """Make a key for the user's identity in a job to come; answered by `Delegated`."""

    job: Name
    generation: Count


class Delegated(Body, frozen=True, kw_only=True):
    """Here is the request for a proxy certificate of that key."""

    csr: Pem


class Start(Body, frozen=True, kw_only=True):
    """Run a job for the group; answered by `Started`."""

    job: Name
    generation: Count
    argv: Annotated[tuple[Arg, ...], Meta(min_length=1, max_length=limits.JOB_ARGS)]
    env: dict[str, Arg] = {}
    files: dict[str, bytes] = {}
    tls: bool = False
    certificate: Pem = ""
    authority: Pem = ""
    proxy: Chain = ""
    lasting: bool = False
    preload: Modules = ()
    asks: bool = False  # whether its questions are answered on its stream


class Started(Body, frozen=True, kw_only=True):
    """The job runs; its output waits for whoever attaches."""


class End(Body, frozen=True, kw_only=True):
    """End a job: ask it, and end its tree after `term_after` seconds."""

    job: Name
    term_after: Span


class Dial(Body, frozen=True, kw_only=True):
    """Dial a stream to me, as you dialled this link, and say `id` on it first.

    Answered by `Done` when that is said.
    """

    id: Nonce


class Dialled(Body, frozen=True, kw_only=True):
    """On a stream that a worker dialled: this is the one that you asked for."""

    id: Nonce


class Probe(Body, frozen=True, kw_only=True):
    """Listen at `host` on any port for a moment, and say `nonce` to who connects.

    So I find out whether connections to you come through.  Answered by `Probed`.
    """

    host: Annotated[str, Meta(min_length=2, max_length=64)]
    nonce: Nonce


class Probed(Body, frozen=True, kw_only=True):
    """I listen on this port."""

    port: Annotated[int, Meta(ge=limits.LOWEST_PORT, le=65535)]


class Forward(Body, frozen=True, kw_only=True):
    """On a stream of its own: connect it to a port on which a job of the lease listens.

    Answered by `Done`; then both end TLS, and the stream carries the port's bytes.
    """

    generation: Count
    port: Annotated[int, Meta(ge=limits.LOWEST_PORT, le=65535)]


class Attach(Body, frozen=True, kw_only=True):
    """On a stream of its own: this stream carries the job's input and output."""

    job: Name


class Leave(Body, frozen=True, kw_only=True):
    """A worker asks to be let go; answered by `Left` when its data has moved.

    `haste` is a `model.group.Haste` by value; with `follow`, tell by `Leaving` how it
    goes.  Asked again, the last one counts.
    """

    reason: Text
    by_after: Span
    haste: Name = "soon"
    follow: bool = False


class Leaving(Body, frozen=True, kw_only=True):
    """So far is your departure; a notice.  The fields are those of `Progress`."""

    pieces: Count = 0
    bytes: Count = 0
    needs_after: Span = 0.0
    fits: bool = True
    moving: bool = False
    moved: Count = 0
    moved_bytes: Count = 0
    running: Count = 0


class Left(Body, frozen=True, kw_only=True):
    """You may go; this is what became of your work.  With `stays`, you stay."""

    moved: Count
    lost: Count
    moved_bytes: Count = 0
    finished: Count = 0
    restarted: Count = 0
    took_after: Span = 0.0
    graceful: bool = True
    member: Annotated[str, Meta(max_length=64)] = ""
    group: Annotated[str, Meta(max_length=64)] = ""
    stays: bool = False


class Stay(Body, frozen=True, kw_only=True):
    """I stay after all; answered `Done`, and my `Leave` with `stays`."""


class Clone(Body, frozen=True, kw_only=True):
    """Your key is used in a second place, too; a notice to whoever is linked.

    `you` is where this link goes to, `address` where the other process is.
    """

    address: Place
    you: Place


class Rotate(Body, frozen=True, kw_only=True):
    """This will be my key; its signature is bound to this link.  Answered `Done`."""

    key: Annotated[bytes, Meta(max_length=32)]
    sig: Annotated[bytes, Meta(max_length=64)]


class Ask(Body, frozen=True, kw_only=True):
    """On a connection of its own: tell me this; answered by `Told` or `Failed`.

    `what` is status, workers, groups, group or events; `after` is an event's number.
    """

    what: Name
    group: Annotated[str, Meta(max_length=64)] = ""
    after: Count = 0


class Told(Body, frozen=True, kw_only=True):
    """A page of the answer: JSON, a view a line, cut anywhere; `more` follow."""

    text: Annotated[str, Meta(max_length=limits.ANSWER_PAGE_CHARS)]
    more: bool = False


TYPES: dict[str, type[Body]] = {
    "hello": Hello,
    "pair": Pair,
    "join": Join,
    "gss": Gss,
    "verdict": VerdictBody,
    "beat": Beat,
    "unsupported": Unsupported,
    "failed": Failed,
    "done": Done,
    "bye": Bye,
    "facts": WorkerFacts,
    "want": Want,
    "warm": Warm,
    "assign": Assign,
    "assigned": Assigned,
    "orphaned": Orphaned,
    "adopt": Adopt,
    "keep": Keep,
    "recall": Recall,
    "recalled": Recalled,
    "release": Release,
    "delegate": Delegate,
    "delegated": Delegated,
    "start": Start,
    "started": Started,
    "end": End,
    "dial": Dial,
    "dialled": Dialled,
    "attach": Attach,
    "probe": Probe,
    "probed": Probed,
    "forward": Forward,
    "leave": Leave,
    "leaving": Leaving,
    "left": Left,
    "stay": Stay,
    "clone": Clone,
    "rotate": Rotate,
    "ask": Ask,
    "told": Told,
}
NAMES: dict[type[Body], str] = {kind: name for name, kind in TYPES.items()}


def encode(body: Body, *, n: int = 0, re: int = 0) -> bytes:
    """Return the JSON of an envelope around `body`."""
    fields = msgspec.to_builtins(body)
    return msgspec.json.encode(Envelope(t=NAMES[type(body)], n=n, re=re, b=fields))
