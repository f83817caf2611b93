"""The Dask engine: a scheduler beside the master, workers on the members, all TLS.

What touches Dask runs in two scripts, `dask_head.py` and `dask_node.py` (with what is
put beside them), in the group's environment; here they are sent JSON lines (`talk.py`),
and Dask is never imported.  A spare of each has imported Dask before it is needed:
joining takes hundredths of a second.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

import trio

from aemesh.engines.dask.page import DaskPage
from aemesh.engines.dask.settings import check_settings
from aemesh.engines.dask.talk import Said, Talk
from aemesh.errors import AemeshError, EngineError, quoted
from aemesh.model.group import Haste, Progress, Receipt
from aemesh.model.job import JobSpec
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from aemesh.plugin import GroupContext, Member, Page, RunningEngine

_log = logging.getLogger(__name__)

# Members that are gone, told to each node that comes: as many as the scripts keep.
_REFUSED_MEMBERS = 65536
# A node is told of the first departure at once, and then of what came together: a
# switch that fails takes half of a group within a beat or two.
_REFUSE_EVERY = 0.5
# A client is beside the scheduler, whatever becomes of the network.
_LOOPBACK = "127.0.0.1"
# What a script imports of ours is put beside it.
_BESIDE = {
    "dask_head.py": (
        "dask_departure.py",
        "dask_door.py",
        "dask_page.py",
        "dask_plan.py",
        "dask_tls.py",
    ),
    "dask_node.py": ("dask_door.py", "dask_preload.py", "dask_tls.py"),
}
# Clients that fetch from workers themselves get over a lost one as fast as the
# scheduler does; 11 s is the least that distributed takes for the second.
_TIMEOUTS = {"CONNECT": "5s", "TCP": "11s"}
# Processes of one member whose address is being found out: one for each core.
_ASKING = 512


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
        # Of those, what a node is still to be told; none: nobody tells it anything.
        self._untold: dict[Talk, list[str]] = {}
        self._closing = trio.Event()

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
        self._closing.set()
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
        """No certificate of a member that is gone opens a door here any more.

        While the group closes that is the head's door: the nodes leave, too.
        """
        self._refused[member.label] = None
        if len(self._refused) > _REFUSED_MEMBERS:
            del self._refused[next(iter(self._refused))]
        await _tell_refused(self._head, [member.label])
        if self._group.closing:
            return
        for node in self._nodes.values():  # not waited for: one may be silent
            if node not in self._untold:
                self._nursery.start_soon(self._tell_untold, node)
            self._untold.setdefault(node, []).append(member.label)

    async def _tell_untold(self, node: Talk) -> None:
        """Tell a node who left, until there is no more to tell."""
        while self._untold[node]:
            labels, self._untold[node] = self._untold[node], []
            await _tell_refused(node, labels)
            with trio.move_on_after(_REFUSE_EVERY):
                await self._closing.wait()
        del self._untold[node]

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


async def _stay_alive(head: Talk, block: trio.CancelScope) -> None:
    """Listen to the scheduler; when it dies, the engine has failed."""
    await head.listen()
    if not head.closing:
        head.died = True
        block.cancel()


async def _tell_refused(talk: Talk, labels: Iterable[str]) -> None:
    with suppress(EngineError):  # one that has ended lets nobody in
        await talk.refuse(labels)


def _host(address: str) -> str:
    """Return an address as Dask wants it: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address


def _spec(script: str) -> JobSpec:
    folder = files("aemesh.engines.dask")
    names = (script, *_BESIDE.get(script, ()))
    content = {name: folder.joinpath(name).read_bytes() for name in names}
    return JobSpec(argv=("{python}", script), files=content, tls=True, lasting=True)


ENGINE = DaskEngine()
