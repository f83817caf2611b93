"""The Dask scheduler of a group: a script beside the master that obeys JSON lines.

It runs in the group's environment and imports nothing of aemesh but what is put beside
it: `dask_departure.py`, `dask_door.py`, `dask_page.py`, `dask_plan.py` and
`dask_tls.py`. Started as a spare it has imported distributed and waits for its first
line. The words it understands and says are in `docs/reference/protocol.md`; each line
is one JSON object.

Dask leaves three things to us: nothing may listen but TLS on the chosen addresses, a
retirement must end at its deadline, and a machine known to be lost is dropped at once
(a cut cable is silent, Dask alone would wait for TCP to give up).
"""
# distributed is asyncio's, untyped, and Python 3.10 here has neither `override` nor one
# TimeoutError.
# ruff: noqa: TID251, ANN401, E402
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import gc

gc.disable()  # imports make no garbage, and looking for it takes a tenth of their time

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped]

# dask reads its default settings with the loader of this name, and libyaml's does it
# ten times faster: 30 ms less.
_loader, yaml.SafeLoader = (
    yaml.SafeLoader,
    getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)

import dask
from dask_departure import Departures
from dask_page import Pages
from dask_tls import DOOR, security_from
from distributed import Scheduler
from distributed.diagnostics.plugin import SchedulerPlugin
from distributed.metrics import time as dask_time
from distributed.versions import get_versions

yaml.SafeLoader = _loader  # tasks may mean just this one

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from distributed.scheduler import TaskState, WorkerState

# A peer on a local network answers in milliseconds; one that is silent for this long is
# gone, and whoever waits for it should go on.
CONNECT_AFTER = "5s"
# The lowest that distributed accepts (ten probes, a second each, and one): the bound
# for those whom no "remove" reaches.
TCP_AFTER = "11s"
# Lost and retired machines blame no task (`expected`); only unannounced deaths count.
# An innocent task may meet a few of those on borrowed machines; one that kills costs
# seven processes before it is called bad.
ALLOWED_FAILURES = 6
# The master's failure detector watches the machines; Dask's would kill workers
# whose task holds the interpreter lock for minutes, as compiled analysis code does.
WORKER_TTL = None
# What is said to a lost machine may still reach one that is merely slow; then hang up.
HANG_UP_AFTER = 1.0
# The agent kills at two seconds; end in order before that.
CLOSE_WITHIN = 1.5
# The configuration is the largest line; the agent is trusted, but a bound is a bound.
LINE_BYTES = 1 << 20

DEFAULTS: dict[str, Any] = {
    "distributed.comm.timeouts.connect": CONNECT_AFTER,
    "distributed.comm.timeouts.tcp": TCP_AFTER,
    "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
    "distributed.scheduler.worker-ttl": WORKER_TTL,
}
# Nothing from a settings file of this machine may load code, speak HTTP or weaken TLS.
ENFORCED: dict[str, Any] = {
    "distributed.comm.require-encryption": True,
    "distributed.comm.tls.min-version": 1.3,
    "distributed.scheduler.preload": [],
    "distributed.scheduler.http.routes": [],
}


class Lines:
    """The two ends of the conversation, out of reach of any `print`."""

    def __init__(self) -> None:
        self.reading = os.dup(0)  # dup'ed descriptors are not inherited on exec
        self._writing = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)

    def say(self, **event: Any) -> None:
        """Write one line; a reader who is gone is noticed at our stdin."""
        line = json.dumps(event, separators=(",", ":"), default=str) + "\n"
        with contextlib.suppress(BrokenPipeError):
            data = line.encode()
            while data:
                data = data[os.write(self._writing, data) :]

    async def open_reader(self) -> asyncio.StreamReader:
        """Return a reader of what the agent says."""
        reader = asyncio.StreamReader(limit=LINE_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self.reading, "rb")
        )
        return reader


class TlsScheduler(Scheduler):
    """A scheduler that listens by TLS only, and knows who will leave.

    Each task that is sent anywhere passes `_add_to_processing`, and whoever wants more
    to do is in `idle`.
    """

    departures: Departures | None = None

    def start_http_server(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: distributed would open plain HTTP even without a dashboard."""

    def _add_to_processing(
        self, ts: TaskState, ws: WorkerState, stimulus_id: str
    ) -> Any:
        """Send a task to a worker that can end it before it leaves, or to none."""
        chosen = ws if self.departures is None else self.departures.choose(ts, ws)
        if chosen is not None:
            return super()._add_to_processing(ts, chosen, stimulus_id)
        if ts.state == "queued":
            self.queued.add(ts)
        elif ts.state == "no-worker":
            self.unrunnable[ts] = time.monotonic()
        else:
            queued = ts._queueable and self.is_rootish(ts)  # noqa: SLF001
            return {ts.key: "queued" if queued else "no-worker"}, {}, {}
        return {}, {}, {}

    def check_idle_saturated(self, ws: WorkerState, occ: float = -1.0) -> None:
        """See whether a worker wants more to do; one that will leave steals nothing."""
        super().check_idle_saturated(ws, occ)
        if self.departures is not None and self.departures.of(ws) is not None:
            self.idle.pop(ws.address, None)


class Watch(SchedulerPlugin):
    """Tells the engine who comes and who goes."""

    name = "aemesh-watch"

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._names: dict[str, str] = {}  # a removed worker's name is already forgotten

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Report a worker that registered."""
        ws = scheduler.workers[worker]
        self._names[worker] = str(ws.name)
        self._lines.say(
            event="worker-added", name=str(ws.name), address=worker, host=ws.host
        )

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Report a worker that left, was removed or died."""
        del scheduler
        name = self._names.pop(worker, "")
        self._lines.say(event="worker-removed", name=name, address=worker)


class Work(SchedulerPlugin):
    """Knows when each worker had something to do last."""

    name = "aemesh-work"

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._where: dict[Any, str] = {}  # of each task that is with a worker
        self._worked_at: dict[str, float] = {}
        self._ended: dict[str, int] = {}

    def add_worker(self, scheduler: Scheduler, worker: str) -> None:
        """Count from its registration."""
        del scheduler
        self._worked_at[worker] = self._now()
        self._ended[worker] = 0

    def remove_worker(self, scheduler: Scheduler, worker: str, **_: Any) -> None:
        """Forget one that is gone."""
        del scheduler
        self._worked_at.pop(worker, None)
        self._ended.pop(worker, None)

    def transition(
        self, key: Any, start: str, finish: str, *_args: Any, **told: Any
    ) -> None:
        """Note the end of work; it runs at each step of each task, so it is short."""
        if start == "processing":
            sent = self._where.pop(key, None)
            worker = told.get("worker", sent)  # another, if it was stolen
            if worker in self._worked_at:
                self._worked_at[worker] = self._now()
                self._ended[worker] += finish == "memory"
        if finish == "processing":
            on = self._scheduler.tasks[key].processing_on
            if on is not None:
                self._where[key] = on.address

    async def start(self, scheduler: Scheduler) -> None:
        """Remember whose plugin this is."""
        self._scheduler = scheduler

    def ended(self, ws: WorkerState) -> int:
        """Return how many tasks a worker has ended."""
        return self._ended.get(ws.address, 0)

    def idle_after(self, ws: WorkerState) -> float:
        """Return the seconds since a worker's last task, 0.0 while it has one.

        One with an actor has a state that its calls, which the scheduler does not
        see, work on: it is never idle.
        """
        if ws.processing or ws.actors:
            return 0.0
        return max(0.0, self._now() - self._worked_at[ws.address])


def as_value(text: Any) -> Any:
    """Return what a setting says, read as Dask reads its variables."""
    return dask.config.interpret_value(text) if isinstance(text, str) else text


def configure(config: dict[str, Any]) -> None:
    """Set Dask's configuration: our defaults, the group's wishes, what must hold."""
    # Not /tmp, where distributed would meet (and purge) what other jobs left.
    dask.config.set({"temporary-directory": os.getcwd()})
    dask.config.set(DEFAULTS)
    dask.config.set({name: as_value(text) for name, text in config.items()})
    dask.config.set(ENFORCED)


class Head:
    """One scheduler and the orders about it."""

    def __init__(
        self, scheduler: TlsScheduler, lines: Lines, work: Work, *, host: str
    ) -> None:
        self._scheduler = scheduler
        self._lines = lines
        self._work = work
        self._departures = Departures(scheduler, member_of, work.ended)
        scheduler.departures = self._departures
        self._pages = Pages(scheduler)
        self._tasks: set[asyncio.Task[None]] = set()
        self._doors = {host: scheduler.address}
        self._orders: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "expect": self._expect,
            "progress": self._progress,
            "retire": self._retire,
            "remove": self._remove,
            "refuse": self._refuse,
            "idle": self._idle,
            "listen": self._listen,
            "info": self._info,
            "page-open": self._open_page,
            "page-read": self._read_page,
            "page-write": self._write_page,
            "page-close": self._close_page,
            "report": self._report,
        }

    def obey(self, order: dict[str, Any]) -> None:
        """Start what is ordered; its reply carries the order's id."""
        task = asyncio.create_task(self._answer(order))
        self._tasks.add(task)  # the loop alone would hold it weakly
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, order: dict[str, Any]) -> None:
        try:
            handler = self._orders.get(str(order.get("op")))
            if handler is None:
                self._error(order, f"unknown op {order.get('op')!r}")
            else:
                await handler(order)
        except Exception as error:  # noqa: BLE001  # one order must not end the group
            self._error(order, f"{type(error).__name__}: {error}")

    def _error(self, order: dict[str, Any], message: str) -> None:
        self._lines.say(event="error", id=order.get("id"), message=message)

    async def _expect(self, order: dict[str, Any]) -> None:
        """Know when a member will leave; with `by` null, that it stays."""
        member, by = str(order["member"]), order.get("by")
        if by is None:
            self._departures.call_off(member)
        else:
            self._departures.agree(member, float(by), soon=False)
        self._lines.say(event="expected", id=order.get("id"))

    async def _progress(self, order: dict[str, Any]) -> None:
        """Tell how far the departure of a member is."""
        departure = self._departures.get(str(order["member"]))
        told = {} if departure is None else departure.progress()
        self._lines.say(event="progress", id=order.get("id"), **told)

    async def _retire(self, order: dict[str, Any]) -> None:
        """Let a member leave: soon, as late as it may, or now with nothing moved."""
        member, haste = str(order["member"]), order.get("haste", "soon")
        by = 0.0 if haste == "now" else float(order["by"])
        departure = self._departures.agree(member, by, soon=haste != "late")
        departure.standing = False
        asked = [ws.address for ws in departure.workers()]
        await departure.wait()
        if departure.stays:
            self._lines.say(event="stays", id=order.get("id"))
            return
        if not departure.counted:  # asked twice, it ends once
            departure.count()
            await self._drop(departure.workers())
            self._departures.forget(member)
        self._lines.say(
            event="retired", id=order.get("id"), workers=asked, **departure.counted
        )

    async def _remove(self, order: dict[str, Any]) -> None:
        lost = self._departures.workers_of(str(order["member"]))
        self._departures.forget(str(order["member"]))
        await self._drop(lost)
        self._lines.say(
            event="removed", id=order.get("id"), workers=[ws.address for ws in lost]
        )

    async def _refuse(self, order: dict[str, Any]) -> None:
        DOOR.refuse(str(order["member"]))

    async def _listen(self, order: dict[str, Any]) -> None:
        """Be reached at one more address; there already: say where.

        What came over an address that the machine no longer has is not closed here:
        the address may come back, and those who are there are told lost.
        """
        host = str(order["host"])
        if host not in self._doors:
            await self._open_door(host)
        self._lines.say(
            event="listening", id=order.get("id"), address=self._doors[host]
        )

    async def _open_door(self, host: str) -> None:
        scheduler = self._scheduler
        for port in (scheduler.port, 0):  # the same one, unless somebody has it there
            try:
                await scheduler.listen(
                    f"tls://{host}:{port}",
                    allow_offload=False,
                    # As distributed's own, for clients of other versions of Python.
                    handshake_overrides={"pickle-protocol": 4, "compression": None},
                    **scheduler.security.get_listen_args("scheduler"),
                )
            except OSError:
                if not port:
                    raise
            else:
                self._doors[host] = scheduler.listeners[-1].contact_address
                return

    async def _drop(self, leaving: list[WorkerState]) -> None:
        """Forget workers now; their tasks start elsewhere and are not blamed.

        distributed tells the other workers, which then hang up on the lost one, so a
        fetch from a silent machine ends at once.
        """
        scheduler, loop = self._scheduler, asyncio.get_running_loop()
        for ws in leaving:
            comm = scheduler.stream_comms.get(ws.address)
            await scheduler.remove_worker(
                ws.address, stimulus_id=f"aemesh-drop-{dask_time()}", expected=True
            )
            if comm is not None:
                loop.call_later(HANG_UP_AFTER, comm.abort)

    async def _idle(self, order: dict[str, Any]) -> None:
        """Tell since when each member has nothing to do: none of its processes has."""
        members: dict[str, float] = {}
        for ws in self._scheduler.workers.values():
            member, after = member_of(ws), self._work.idle_after(ws)
            members[member] = min(after, members.get(member, after))
        self._lines.say(event="idle", id=order.get("id"), members=members)

    async def _report(self, order: dict[str, Any]) -> None:
        """Tell a new master where we are, and who may not come in any more."""
        del order
        self._pages.close_all()
        self._lines.say(event="ready", doors=self._doors, refused=DOOR.refused())

    async def _open_page(self, order: dict[str, Any]) -> None:
        """Open a connection to the dashboard."""
        number = await self._pages.open()
        self._lines.say(event="page", id=order.get("id"), page=number)

    async def _read_page(self, order: dict[str, Any]) -> None:
        """Wait for what comes next on a connection; nothing is its end."""
        data = await self._pages.read(int(order["page"]))
        text = base64.b64encode(data).decode()
        self._lines.say(event="page", id=order.get("id"), data=text)

    async def _write_page(self, order: dict[str, Any]) -> None:
        """Say something on a connection."""
        await self._pages.write(int(order["page"]), base64.b64decode(order["data"]))
        self._lines.say(event="page", id=order.get("id"))

    async def _close_page(self, order: dict[str, Any]) -> None:
        """Close a connection."""
        self._pages.close(int(order["page"]))
        self._lines.say(event="page", id=order.get("id"))

    async def _info(self, order: dict[str, Any]) -> None:
        states: dict[str, int] = {}
        for ts in self._scheduler.tasks.values():
            states[ts.state] = states.get(ts.state, 0) + 1
        workers = len(self._scheduler.workers)
        self._lines.say(event="info", id=order.get("id"), workers=workers, tasks=states)


def member_of(ws: WorkerState) -> str:
    """Return the label of the member whose process this worker is."""
    return str(ws.name).rpartition("-")[0]


async def converse(lines: Lines) -> int:
    """Open a scheduler by the first line, obey the others; return the exit code."""
    reader = await lines.open_reader()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, reader.feed_eof)
    get_versions()  # cached: compared at each registration, 25 ms the first time
    gc.freeze()
    gc.enable()
    lines.say(event="warm")
    order = await next_order(reader, lines)
    if order is None:
        return 0
    if order.get("op") == "report":  # a new master, and the former one never opened us
        lines.say(event="unopened")
        return 0
    configure(order.get("config") or {})
    work = Work()
    scheduler = TlsScheduler(
        host=order["host"],
        port=int(order.get("port", 0)),
        protocol="tls",
        security=security_from(order["tls"]),
        dashboard=False,
        plugins=[Watch(lines), work],
    )
    await scheduler
    lines.say(event="ready", address=scheduler.address)
    head = Head(scheduler, lines, work, host=str(order["host"]))
    while (order := await next_order(reader, lines)) is not None:
        head.obey(order)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(scheduler.close(reason="aemesh-close"), CLOSE_WITHIN)
    return 0


async def next_order(
    reader: asyncio.StreamReader, lines: Lines
) -> dict[str, Any] | None:
    """Return the next order, or None when it is time to close."""
    while (line := await reader.readline()).endswith(b"\n"):
        if not line.strip():
            continue  # a new master ends what the former one was writing
        try:
            order: dict[str, Any] = dict(json.loads(line))
        except (ValueError, TypeError) as error:
            lines.say(event="error", id=None, message=f"not an order: {error}")
        else:
            return None if order.get("op") == "close" else order
    return None


def main() -> None:
    """Run until told to close, or until the agent is gone."""
    lines = Lines()

    async def run() -> None:
        code = 1
        try:
            code = await converse(lines)
        except Exception as error:  # noqa: BLE001  # told, and the process ends
            reason: BaseException = error
            while reason.__cause__ is not None:  # "failed to start" is none
                reason = reason.__cause__
            traceback.print_exception(reason)  # its last line is the same: no race
            message = f"{type(reason).__name__}: {reason}"
            lines.say(event="error", id=None, message=message)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # no thread or peer may keep us from ending

    asyncio.run(run())


if __name__ == "__main__":
    main()
