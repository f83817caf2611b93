"""The Dask engine: a scheduler beside the master, workers on the members, all TLS.

What touches Dask runs in two scripts, `dask_head.py` (with `dask_departure.py`,
`dask_page.py` and `dask_plan.py`) and `dask_node.py` (with `dask_preload.py`), in the
group's environment; this file sends them JSON lines and never imports Dask.  A spare
of each has imported Dask before it is needed: joining takes hundredths of a second.
"""

from __future__ import annotations

import base64
import itertools
import json
import logging
from collections import deque
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypedDict, cast

import trio

from aemesh.engines.dask_settings import check_settings
from aemesh.errors import AemeshError, EngineError, quoted
from aemesh.model.group import Haste, Progress, Receipt
from aemesh.model.job import Channel, JobExit, JobSpec
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping

    from aemesh.plugin import GroupContext, Job, Member, Page, RunningEngine

_log = logging.getLogger(__name__)

# A line of the scripts' is an event with a few names; more is not from them.
_LINE_BYTES = 1024 * 1024
# The last words of a process that ended badly, for its error message.
_LAST_WORDS = 5
_SHOWN_BYTES = 100
# From "close" to SIGTERM to SIGKILL; the scripts themselves take at most 1.5 s.
_CLOSE_AFTER = 2.0
# Members that are gone, told to each node that comes: as many as the scripts keep.
_REFUSED_MEMBERS = 65536
# A client is beside the scheduler, whatever becomes of the network.
_LOOPBACK = "127.0.0.1"
# What a script imports of ours is put beside it.
_BESIDE = {
    "dask_head.py": ("dask_departure.py", "dask_page.py", "dask_plan.py"),
    "dask_node.py": ("dask_preload.py",),
}
_TLS = {"ca": "tls/ca.pem", "cert": "tls/cert.pem", "key": "tls/key.pem"}
# Clients that fetch from workers themselves get over a lost one as fast as the
# scheduler does; 11 s is the least that distributed takes for the second.
_TIMEOUTS = {"CONNECT": "5s", "TCP": "11s"}


class Said(TypedDict, total=False):
    """One line of a script's; which fields it has depends on `event`."""

    event: str
    id: int
    port: int
    page: int
    data: str
    address: str
    name: str
    message: str
    reason: str
    code: int
    moved: int
    moved_bytes: int
    finished: int
    lost: int
    restarted: int
    pieces: int
    bytes: int
    needs: float
    fits: bool
    moving: bool
    running: int
    workers: list[str]
    refused: list[str]
    doors: dict[str, str]
    members: dict[str, object]


# What each field of a line must be.  A member's script is a program on a machine that
# may be rogue: whatever else stands in its lines is passed over.
_FIELDS = {
    **dict.fromkeys(("id", "port", "page", "code", "pieces", "bytes", "running"), int),
    **dict.fromkeys(("moved", "moved_bytes", "finished", "lost", "restarted"), int),
    **dict.fromkeys(("fits", "moving"), bool),
    "needs": float,
    **dict.fromkeys(("event", "address", "name", "message", "reason", "data"), str),
    **dict.fromkeys(("workers", "refused"), list),
    **dict.fromkeys(("members", "doors"), dict),
}
# Lines of one script that come to the log or the history in a minute: a job that says
# nonsense without end would fill both, and stop everything else meanwhile.
_TOLD_PER_MINUTE = 30
# Processes of one member whose address is being found out: one for each core.
_ASKING = 512
# What of a page goes into one line; see `dask_page.py`.
_PAGE_BYTES = 32 * 1024


class DaskEngine:
    """Dask's scheduler and workers, one worker process per core."""

    name = "dask"

    @asynccontextmanager
    async def open(self, group: GroupContext) -> AsyncIterator[RunningEngine]:
        """Start the scheduler; at the end of the block it is gone.

        Raises `EngineError` when it does not come up, and out of the block when it
        dies.
        """
        left = await group.adopt_head()
        job = left or await group.start_head(_spec("dask_head.py"))
        head = Talk("the Dask scheduler", job)
        async with open_crew() as nursery:
            running = RunningDask(group, head, nursery)
            nursery.start_soon(_stay_alive, head, nursery.cancel_scope)
            try:
                await (running.resume() if left else running.open())
                yield running
            finally:
                with trio.CancelScope(shield=True):
                    await running.close()
        # Raised out here, it does not meet what the block made of the same death.
        if head.died:
            msg = f"{head.name} died"
            raise EngineError(msg, why=head.last_words())

    def check_settings(self, settings: Mapping[str, str]) -> None:
        """Raise `UsageError` for what would load code, listen or weaken TLS."""
        check_settings(settings)

    def spare_node(self) -> JobSpec | None:
        """Return a worker that has imported Dask, if Dask is installed here."""
        return _spec("dask_node.py") if find_spec("distributed") else None

    def spare_head(self) -> JobSpec | None:
        """Return a scheduler that has imported Dask, if Dask is installed here."""
        return _spec("dask_head.py") if find_spec("distributed") else None


class RunningDask:
    """A scheduler that is up, and the workers that serve it."""

    def __init__(self, group: GroupContext, head: Talk, nursery: trio.Nursery) -> None:
        self._group = group
        self._head = head
        self._address = ""  # for clients, which are on the master's machine
        self._doors: dict[str, str] = {}  # for members, by the host
        self._nursery = nursery
        self._nodes: dict[str, Talk] = {}
        self._refused: dict[str, None] = {}  # labels, in the order of departure

    def __repr__(self) -> str:
        return f"<RunningDask at {self._address}, {len(self._nodes)} members>"

    async def open(self) -> None:
        """Bring the scheduler up."""
        host = _host(self._group.address)
        settings = dict(self._group.settings)
        ready = await self._head.open({"host": host, "port": 0, "config": settings})
        self._doors[host] = ready["address"]
        self._address = await self._door(_LOOPBACK)

    async def resume(self) -> None:
        """Go on with a scheduler that a former master started."""
        said = await self._head.resume()
        if "doors" not in said or "refused" not in said:
            msg = f"{self._head.name} does not say where it is"
            raise EngineError(msg)
        self._doors = {str(host): str(at) for host, at in said["doors"].items()}
        self._refused = {str(label): None for label in said["refused"]}
        here = _LOOPBACK if self._group.head_is_here else _host(self._group.address)
        self._address = await self._door(here)

    async def close(self) -> None:
        """End Dask on the members that are left, and then the scheduler."""
        async with trio.open_nursery() as nursery:
            for node in self._nodes.values():
                node.closing = True
                nursery.start_soon(node.close)
        self._nodes.clear()
        self._head.closing = True
        await self._head.close()

    async def _door(self, host: str) -> str:
        """Return the scheduler's address on a host of this machine.

        A laptop changes networks while it computes: then there is one more.
        """
        if host not in self._doors:
            said = await self._head.ask("listen", host=host)
            self._doors[host] = said["address"]
        return self._doors[host]

    async def add(self, member: Member) -> None:
        """Start Dask on a member; return when its processes are registered."""
        scheduler = await self._door(_host(self._group.address))
        left = await member.adopt()
        preload = self._group.preload
        job = left or await member.start(
            replace(_spec("dask_node.py"), preload=preload)
        )
        node = Talk(f"Dask on {member.name}", job)
        self._nodes[member.label] = node
        self._nursery.start_soon(self._watch, member, node)
        if left:
            await node.resume()
        await node.refuse(self._refused)
        if left:
            return
        await node.open(
            {
                "scheduler": scheduler,
                "host": _host(member.address),
                "name": member.label,
                "processes": member.cores,
                "threads": 1,
                "memory_limit": member.memory // max(member.cores, 1) or None,
                "local_directory": ".",
                "preload": preload,
                "config": dict(self._group.settings),
            }
        )

    async def retire(
        self, member: Member, *, by_after: float, haste: Haste = Haste.SOON
    ) -> Receipt:
        """Move tasks and results off a member, then end Dask there.

        After an error, or cancelled, the member is still to be told `lost`, or that it
        stays.
        """
        node = self._nodes.get(member.label)
        if node is not None:
            node.closing = True  # the scheduler ends it as soon as it is empty
        said = await self._head.ask(
            "retire", member=member.label, by=by_after, haste=haste.value
        )
        await self._refuse(member)
        if node is not None:
            await (node.end() if haste is Haste.NOW else node.close())
            self._nodes.pop(member.label, None)
        return Receipt(
            member.name,
            self._group.name,
            graceful=haste is not Haste.NOW,
            moved=said.get("moved", 0),
            lost=said.get("lost", 0),
            moved_bytes=said.get("moved_bytes", 0),
            finished=said.get("finished", 0),
            restarted=said.get("restarted", 0),
        )

    async def expect(self, member: Member, *, by_after: float | None) -> None:
        """Have the scheduler plan with a member's end, or with its stay."""
        await self._head.ask("expect", member=member.label, by=by_after)
        node = self._nodes.get(member.label)
        if node is not None and by_after is None:
            node.closing = False

    async def progress(self, member: Member) -> Progress:
        """Return what the scheduler knows of a member's departure."""
        said = await self._head.ask("progress", member=member.label)
        return Progress(
            pieces=said.get("pieces", 0),
            bytes=said.get("bytes", 0),
            needs_after=said.get("needs", 0.0),
            fits=said.get("fits", True),
            moving=said.get("moving", False),
            moved=said.get("moved", 0),
            moved_bytes=said.get("moved_bytes", 0),
            running=said.get("running", 0),
        )

    async def lost(self, member: Member) -> None:
        """Have the scheduler give a lost member's tasks to others, at once."""
        node = self._nodes.pop(member.label, None)
        if node is not None:
            node.closing = True
            self._nursery.start_soon(node.end)
        try:
            await self._head.ask("remove", member=member.label)
        except EngineError:
            if not self._head.ended.is_set():
                raise
        await self._refuse(member)

    async def idle_after(self) -> Mapping[str, float]:
        """Return seconds since each member's last task, as the scheduler has it."""
        said = (await self._head.ask("idle")).get("members", {})
        return {
            label: float(after)
            for label, after in said.items()
            if label in self._nodes and isinstance(after, (int, float))
        }

    async def open_page(self) -> Page:
        """Open a connection to the scheduler's dashboard; raises `EngineError`."""
        said = await self._head.ask("page-open")
        if "page" not in said:
            msg = f"{self._head.name} opened no page"
            raise EngineError(msg)
        return DaskPage(self._head, said["page"])

    def connect_info(self) -> Mapping[str, str]:
        """Return what makes `Client()` find this scheduler, with TLS."""
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        timeouts = "DASK_DISTRIBUTED__COMM__TIMEOUTS__"
        return {
            "DASK_SCHEDULER_ADDRESS": self._address,
            "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "true",
            "DASK_DISTRIBUTED__COMM__DEFAULT_SCHEME": "tls",
            f"{tls}CA_FILE": "{tls}/ca.pem",
            f"{tls}CLIENT__CERT": "{tls}/cert.pem",
            f"{tls}CLIENT__KEY": "{tls}/key.pem",
            **{timeouts + name: span for name, span in _TIMEOUTS.items()},
        }

    async def _refuse(self, member: Member) -> None:
        """No certificate of a member that is gone opens a door here any more."""
        self._refused[member.label] = None
        if len(self._refused) > _REFUSED_MEMBERS:
            del self._refused[next(iter(self._refused))]
        await _tell_refused(self._head, member.label)
        for node in self._nodes.values():  # not waited for: one may be silent
            self._nursery.start_soon(_tell_refused, node, member.label)

    async def _watch(self, member: Member, node: Talk) -> None:
        """Listen to a node until it ends; tell the group if that was not meant."""

        asking: set[tuple[str, int]] = set()

        def take(said: Said) -> None:
            if said["event"] != "listening":
                tell(said)
            elif len(asking) < _ASKING:
                name, port = said.get("name", ""), said.get("port", 0)
                self._nursery.start_soon(
                    self._find_contact, member, node, (name, port), asking
                )

        def tell(said: Said) -> None:
            name, why = quoted(said.get("name", "")), quoted(said.get("reason", ""))
            if said["event"] == "died":
                text = f"Dask on {member.name} lost its process {name}"
                code = said.get("code", 0)
                self._group.report(f"{text} (code {code}), and starts it again")
            elif said["event"] == "unimported":
                text = f"{member.name} works without the module {name}"
                self._group.report(f"{text}: {why}")

        node.take = take
        await node.listen()
        if not node.closing:
            self._group.member_broken(member, node.last_words())

    async def _find_contact(
        self,
        member: Member,
        node: Talk,
        who: tuple[str, int],
        asking: set[tuple[str, int]],
    ) -> None:
        """Tell a process of a node how others reach the port on which it listens."""
        name, port = who
        asking.add(who)
        try:
            found = await member.reach(port)
            direct = found == f"{_host(member.address)}:{port}"
            address = "" if direct else f"tls://{found}"
            await node.tell("contact", name=name, address=address)
        except AemeshError as exc:
            # Nothing comes up there: the member is added in vain, and the group told.
            if node.may_tell():
                _log.warning("%s is not reached: %s", node.name, exc)
        finally:
            asking.discard(who)


class DaskPage:
    """A connection to the dashboard, piece by piece over the lines of the head.

    Implements `aemesh.plugin.Page`.
    """

    def __init__(self, head: Talk, number: int) -> None:
        self._head = head
        self._number = number

    def __repr__(self) -> str:
        return f"<DaskPage {self._number} of {self._head.name}>"

    async def send(self, data: bytes) -> None:
        """Say something; returns when it was taken."""
        for at in range(0, len(data), _PAGE_BYTES):
            piece = base64.b64encode(data[at : at + _PAGE_BYTES]).decode()
            await self._head.ask("page-write", page=self._number, data=piece)

    async def receive(self) -> bytes:
        """Return what comes next; empty at the end."""
        said = await self._head.ask("page-read", page=self._number)
        try:
            return base64.b64decode(said.get("data", ""), validate=True)
        except ValueError as error:
            msg = f"{self._head.name} sends no page"
            raise EngineError(msg, why=str(error)) from error

    async def aclose(self) -> None:
        """Close it; a head that has ended has closed it."""
        with suppress(EngineError):
            await self._head.ask("page-close", page=self._number)


class Talk:
    """JSON lines with one script: what we ask, what it answers, how it ends."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self.closing = False
        self.died = False
        self.ended = trio.Event()
        self.take: Callable[[Said], None] = _ignore  # what is no answer comes here
        self._job = job
        self._exit: JobExit | None = None
        self._numbers = itertools.count(1)
        self._answers: dict[int, Said] = {}
        self._asked: set[int] = set()
        self._told = 0  # since `_told_at`
        self._told_at = float("-inf")
        self._opened: Said | None = None
        self._news = trio.Event()
        self._words: deque[str] = deque(maxlen=_LAST_WORDS)
        self._sending = trio.Lock()  # long lines travel in pieces

    def __repr__(self) -> str:
        state = "ended" if self.ended.is_set() else "running"
        return f"<Talk with {self.name}: {state}>"

    async def open(self, settings: Mapping[str, object]) -> Said:
        """Give the script its settings; return what it says when it is up."""
        await self._send({"op": "open", "tls": _TLS, "config": {}, **settings})
        return await self._wait_opened()

    async def _wait_opened(self) -> Said:
        while self._opened is None:
            await self._wait_news()
        if self._opened["event"] == "unopened":
            msg = f"{self.name} was never opened"
            raise EngineError(msg)
        return self._opened

    async def resume(self) -> Said:
        """Have a script that was opened by a former master say again that it is up.

        The first line ends whatever that one wrote last.
        """
        await self._send({"op": "report"}, before=b"\n")
        return await self._wait_opened()

    async def ask(self, op: str, **fields: object) -> Said:
        """Send an order, and return the answer; raises `EngineError`."""
        number = next(self._numbers)
        self._asked.add(number)
        try:
            await self._send({"op": op, "id": number, **fields})
            while number not in self._answers:
                await self._wait_news()
            answer = self._answers[number]
        finally:
            self._asked.discard(number)
            self._answers.pop(number, None)
        if answer["event"] == "error":
            msg = f"{self.name} could not {op}"
            raise EngineError(msg, why=answer.get("message"))
        return answer

    async def tell(self, op: str, **fields: object) -> None:
        """Send what needs no answer; raises `EngineError`."""
        await self._send({"op": op, **fields})

    async def refuse(self, members: Iterable[str]) -> None:
        """Have the script abort all connections with these, from now on."""
        await self._send(*({"op": "refuse", "member": label} for label in members))

    async def close(self) -> None:
        """End the script in order, or without its help."""
        with trio.move_on_after(_CLOSE_AFTER):
            try:
                await self._send({"op": "close"})
                await self._job.wait()
            except AemeshError:
                pass  # it has ended, or cannot be reached: what follows is for both
        await self.end()

    async def end(self) -> None:
        """End the script and its children, whatever is cancelled meanwhile."""
        with trio.CancelScope(shield=True):
            await self._job.end(term_after=0.0)

    async def listen(self) -> None:
        """Take what the script says until it has ended."""
        pieces = {Channel.STDOUT: b"", Channel.STDERR: b""}
        take: Mapping[Channel, Callable[[bytes], None]] = {
            Channel.STDOUT: self._take_line,
            Channel.STDERR: self._take_words,
        }
        try:
            async with aclosing(self._job.output()) as output:
                async for chunk in output:
                    *lines, rest = (pieces[chunk.channel] + chunk.data).split(b"\n")
                    pieces[chunk.channel] = rest[-_LINE_BYTES:]
                    for line in lines:
                        take[chunk.channel](line)
            self._exit = await self._job.wait()
        finally:
            self.ended.set()
            self._tell_news()

    def last_words(self) -> str:
        """Return why the script ended, as far as it said."""
        code = f"it ended with {self._exit.code}" if self._exit else "it ended"
        reason = f" ({self._exit.reason})" if self._exit and self._exit.reason else ""
        words = f": {quoted(self._words[-1])}" if self._words else ""
        return code + reason + words

    def _take_line(self, line: bytes) -> None:
        said = _said_untrusted(line)
        if said is None:
            if self.may_tell():
                shown = quoted(repr(line[:_SHOWN_BYTES]))
                _log.warning("%s said no line of ours: %s", self.name, shown)
            return
        event, message = said["event"], said.get("message", "")
        if event in ("ready", "up", "unopened"):
            self._opened = said
        elif said.get("id") in self._asked:
            self._answers[said["id"]] = said
        elif event == "error":
            self._words.append(message)
            if self.may_tell():
                _log.warning("%s: %s", self.name, quoted(message))
        elif event == "listening":
            self.take(said)
        elif self.may_tell():
            subject = quoted(said.get("name", ""))
            _log.debug("%s: %s %s", self.name, event, subject)
            self.take(said)
        self._tell_news()

    def may_tell(self) -> bool:
        """Whether one more line of this script may be told in this minute."""
        now = trio.current_time()
        if now - self._told_at >= 60.0:
            self._told_at, self._told = now, 0
        self._told += 1
        return self._told <= _TOLD_PER_MINUTE

    def _take_words(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if text:
            self._words.append(text)
            _log.debug("%s: %s", self.name, quoted(text))

    async def _wait_news(self) -> None:
        if self.ended.is_set():
            msg = f"{self.name} ended"
            raise EngineError(msg, why=self.last_words())
        await self._news.wait()

    def _tell_news(self) -> None:
        self._news.set()
        self._news = trio.Event()

    async def _send(self, *orders: Mapping[str, object], before: bytes = b"") -> None:
        lines = (json.dumps(order).encode() + b"\n" for order in orders)
        data = before + b"".join(lines)
        try:
            async with self._sending:
                await self._job.send(data)
        except AemeshError as exc:
            msg = f"{self.name} does not listen"
            raise EngineError(msg, why=str(exc)) from exc


async def _stay_alive(head: Talk, block: trio.CancelScope) -> None:
    """Listen to the scheduler; when it dies, the engine has failed."""
    await head.listen()
    if not head.closing:
        head.died = True
        block.cancel()


async def _tell_refused(talk: Talk, label: str) -> None:
    with suppress(EngineError):  # one that has ended lets nobody in
        await talk.refuse([label])


def _said_untrusted(line: bytes) -> Said | None:
    """Return what a line says as far as it is ours; None if it says nothing."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    # Not `isinstance`: true is no number.
    said = {name: v for name, v in found.items() if type(v) is _FIELDS.get(name)}
    return cast("Said", said) if "event" in said else None


def _ignore(_said: Said) -> None:
    """Take no notice."""


def _host(address: str) -> str:
    """Return an address as Dask wants it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _spec(script: str) -> JobSpec:
    folder = files("aemesh.engines")
    names = (script, *_BESIDE.get(script, ()))
    content = {name: folder.joinpath(name).read_bytes() for name in names}
    return JobSpec(argv=("{python}", script), files=content, tls=True, lasting=True)


ENGINE = DaskEngine()
