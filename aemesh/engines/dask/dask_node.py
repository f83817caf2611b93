"""The Dask workers of one member: a script that forks them and obeys JSON lines.

It runs in the group's environment and imports nothing of aemesh but what is put beside
it: `dask_door.py`, `dask_preload.py` and `dask_tls.py`. Started as a spare it has
imported distributed, and the modules that the group names, and waits for its first
line; then a worker is a fork away, which takes hundredths of a second where a new
interpreter takes tenths.

A fork copies only the calling thread, and any lock another thread held stays locked for
ever. So the parent never starts a thread or an event loop: it is a `select` loop over
its stdin, two pipes of each child, and signals. The children run everything else.
"""
# distributed is asyncio's, untyped, and Python 3.10 here has neither `override` nor one
# TimeoutError. The environment must be set before it is imported.
# ruff: noqa: TID251, ANN401, E402
# mypy: disable-error-code="override, no-untyped-call"

from __future__ import annotations

import gc
import os

gc.disable()  # imports make no garbage, and looking for it takes a tenth of their time
# Numerical libraries start a thread pool at import, which would be there at the fork;
# and with a process for each core, one thread in each is also what is fast.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import asyncio
import contextlib
import ctypes
import json
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import yaml  # type: ignore[import-untyped]

# dask reads its default settings with the loader of this name, and libyaml's does it
# ten times faster: 30 ms less.
_loader, yaml.SafeLoader = (
    yaml.SafeLoader,
    getattr(yaml, "CSafeLoader", yaml.SafeLoader),
)

import dask
import tornado.platform.asyncio  # noqa: F401  # each worker would import it for itself
from dask_door import COMMON_NAME_LENGTH
from dask_preload import preload
from dask_tls import DOOR, security_from
from distributed import Worker
from distributed.versions import get_versions

yaml.SafeLoader = _loader  # tasks may mean just this one

if TYPE_CHECKING:
    from collections.abc import Iterable

# See dask_head.py: silent for this long is gone; the lowest that distributed accepts.
CONNECT_AFTER = "5s"
TCP_AFTER = "11s"
# A worker that cannot register in this time counts as dead and is tried anew.
REGISTER_WITHIN = 30.0
# What a worker gets for leaving in order; a task that will not end does not hold it up.
LEAVE_WITHIN = 1.5
# What all workers get before SIGKILL; the agent waits two seconds for us.
CLOSE_WITHIN = 1.8
# A process that dies sooner than this after its start is in a crash loop, perhaps.
QUICK_DEATH_WITHIN = 10.0
# The first death is mended at once; a crash loop slows to one try in ten seconds.
BACKOFF_FIRST, BACKOFF_MOST = 0.25, 10.0
# The configuration is the largest line; the agent is trusted, but a bound is a bound.
LINE_BYTES = 1 << 20
# Labels told to a child at once: of 64 characters, that is within PIPE_BUF (4096), so
# that its pipe takes the line whole or not at all.
REFUSED_A_LINE = 50
# The scheduler hung up without a word: whoever reads our exit code may want to know.
EXIT_CUT_OFF = 3
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

DEFAULTS: dict[str, Any] = {
    "distributed.comm.timeouts.connect": CONNECT_AFTER,
    "distributed.comm.timeouts.tcp": TCP_AFTER,
}
# Nothing from a settings file of this machine may load code, speak HTTP or weaken TLS.
ENFORCED: dict[str, Any] = {
    "distributed.comm.require-encryption": True,
    "distributed.comm.tls.min-version": 1.3,
    "distributed.worker.preload": [],
    "distributed.worker.http.routes": [],
}


# Returns where others reach a port of ours; "" is at our own address.
FindContact = Callable[[int], Awaitable[str]]


class TlsWorker(Worker):
    """A worker whose only listener is its TLS one, and which tells why it leaves."""

    def __init__(self, *args: Any, find_contact: FindContact, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._find_contact = find_contact
        self.leaving: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def start_http_server(self, *_args: Any, **_kwargs: Any) -> None:
        """Do nothing: distributed would open plain HTTP even without a dashboard."""

    async def listen(self, *args: Any, **kwargs: Any) -> None:
        """Listen, and find out under which address others reach that.

        It is the worker's address from then on, in all that distributed says of it.
        """
        await super().listen(*args, **kwargs)
        contact = await self._find_contact(self.port)
        if contact:
            self._address = self.contact_address = contact

    async def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close as distributed does, after noting the reason."""
        if not self.leaving.done():
            self.leaving.set_result(str(kwargs.get("reason", "worker-close")))
        return await super().close(*args, **kwargs)


def as_value(text: Any) -> Any:
    """Return what a setting says, read as Dask reads its variables."""
    return dask.config.interpret_value(text) if isinstance(text, str) else text


def write_line(fd: int, event: dict[str, Any]) -> None:
    """Write one line; a reader who is gone is noticed elsewhere."""
    data = (json.dumps(event, separators=(",", ":")) + "\n").encode()
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(fd, data) :]


class LineReader:
    """Whole JSON lines out of a descriptor that is read when it is ready."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._rest = bytearray()  # not searched again when more comes

    def read(self) -> tuple[list[bytes], bool]:
        """Return the lines that are complete, and whether this was the end."""
        data = os.read(self.fd, 65536)
        *lines, rest = data.split(b"\n")
        if lines:
            lines[0] = bytes(self._rest) + lines[0]
            self._rest.clear()
        self._rest += rest
        return lines, not data or len(self._rest) > LINE_BYTES


@dataclass(frozen=True)
class Child:
    """What a worker process gets from its parent: who it is, and two pipes."""

    name: str
    report: int
    control: int


def listen_to_parent(control: int) -> asyncio.Future[str]:
    """Do what the parent says, one thing on each line, from now on.

    Return what will be the address under which others reach us, "" for our own.
    """
    reader, loop = LineReader(control), asyncio.get_running_loop()
    contact: asyncio.Future[str] = loop.create_future()

    def on_lines() -> None:
        lines, ended = reader.read()
        for line in map(json.loads, lines):
            for member in line.get("refuse", ()):
                DOOR.refuse(member)
            if "contact" in line and not contact.done():
                contact.set_result(line["contact"])
        if ended:
            loop.remove_reader(control)

    loop.add_reader(control, on_lines)
    return contact


async def serve(order: dict[str, Any], child: Child) -> int:
    """Run one worker until it leaves; return the process's exit code."""
    contact = listen_to_parent(child.control)

    async def find_contact(port: int) -> str:
        write_line(child.report, {"listening": port})
        return await contact

    limit = order.get("memory_limit")
    worker = TlsWorker(
        order["scheduler"],
        host=order["host"],
        protocol="tls",
        name=child.name,
        nthreads=int(order.get("threads", 1)),
        memory_limit="auto" if limit is None else limit,
        local_directory=order["local_directory"],
        security=security_from(order["tls"]),
        dashboard=False,
        find_contact=find_contact,
    )
    loop = asyncio.get_running_loop()
    closing: set[asyncio.Task[Any]] = set()

    def close() -> None:
        closing.add(loop.create_task(worker.close(timeout=1, reason="node-close")))

    loop.add_signal_handler(signal.SIGTERM, close)
    starting = loop.create_task(asyncio.wait_for(worker.start(), REGISTER_WITHIN))
    await asyncio.wait({starting, worker.leaving}, return_when="FIRST_COMPLETED")
    if not worker.leaving.done():
        starting.result()
        write_line(child.report, {"registered": worker.address})
    reason = await worker.leaving
    if reason.startswith("failure-to-start"):
        return 1
    write_line(child.report, {"leaving": reason})
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(worker.finished(), LEAVE_WITHIN)
    return EXIT_CUT_OFF if reason.endswith("connection-broken") else 0


def run_child(order: dict[str, Any], child: Child) -> NoReturn:
    """Be a worker process, to the end."""

    async def run() -> None:
        code = 1
        try:
            code = await serve(order, child)
        except BaseException:  # noqa: BLE001  # whatever it was, the process ends here
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a task's thread that still runs may not keep us

    asyncio.run(run())
    os._exit(1)


@dataclass
class Slot:
    """The place of one worker; process after process may fill it."""

    name: str
    pid: int | None = None
    report: LineReader | None = None
    control: int | None = None
    started_at: float = 0.0
    quick_deaths: int = 0
    start_at: float | None = 0.0  # None: not to be started
    registered: bool = False
    left_because: str | None = None


class Node:
    """The parent: starts workers, tells about them, ends them."""

    def __init__(self) -> None:
        self.orders = LineReader(os.dup(0))
        self._says = os.dup(1)  # dup'ed descriptors are not inherited on exec
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        self._order: dict[str, Any] | None = None
        self._unimported: set[str] = set()
        self._slots: list[Slot] = []
        self._refused: list[str] = []  # of which the children do not know yet
        self._kill_at: float | None = None
        self._up = False
        self._is_direct = False  # whether others reach us by our own address
        self._exit_code = 0
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._signals, self._woken = os.pipe()
        for fd in (self._signals, self._woken):
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def say(self, **event: Any) -> None:
        """Tell the engine something."""
        write_line(self._says, event)

    def run(self) -> int:
        """Serve until all workers are gone; return the exit code."""
        get_versions()  # cached: told at each registration, 25 ms the first time
        self._preload(filter(None, os.environ.get("AEMESH_PRELOAD", "").split(",")))
        self.say(event="warm")
        gc.freeze()  # what is shared with the children stays shared
        gc.enable()
        while self._kill_at is None or any(slot.pid for slot in self._slots):
            if self._order is not None and not self._is_wanted():
                break
            self._wait()
            self._act_on_time()
        self.say(event="closed", code=self._exit_code)
        return self._exit_code

    def _is_wanted(self) -> bool:
        return any(slot.pid or slot.start_at is not None for slot in self._slots)

    def _wait(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._signals, selectors.EVENT_READ, self._on_signals)
            if self._kill_at is None:
                selector.register(self.orders.fd, selectors.EVENT_READ, self._on_order)
            for slot in self._slots:
                if slot.report is not None:
                    selector.register(slot.report.fd, selectors.EVENT_READ, slot)
            for key, _ in selector.select(self._next_after()):
                if not isinstance(key.data, Slot):
                    key.data()
                elif key.data.report is not None:  # its end may just have been handled
                    self._on_report(key.data)

    def _next_after(self) -> float | None:
        moments = [s.start_at for s in self._slots if s.start_at is not None]
        if self._kill_at is not None:
            moments.append(self._kill_at)
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _act_on_time(self) -> None:
        now = time.monotonic()
        if self._kill_at is not None:
            if now >= self._kill_at:
                self._signal_all(signal.SIGKILL)
                self._kill_at = now + CLOSE_WITHIN
            return
        for slot in self._slots:
            if slot.start_at is not None and now >= slot.start_at:
                self._start(slot)

    def _on_order(self) -> None:
        lines, ended = self.orders.read()
        for line in filter(bytes.strip, lines):
            try:
                self._obey(json.loads(line))
            except (ValueError, KeyError, AttributeError, OSError) as error:
                self.say(event="error", message=f"{type(error).__name__}: {error}")
        self._pass_on_refused()
        if ended:
            self._close()

    def _obey(self, order: dict[str, Any]) -> None:
        if order["op"] == "close":
            self._close()
        elif order["op"] == "refuse":
            self._refuse(str(order["member"]))
        elif order["op"] == "contact":
            self._tell_contact(str(order["name"]), str(order["address"]))
        elif order["op"] == "open" and self._order is None:
            self._open(order)
        elif order["op"] == "report":
            self._report()
        else:
            message = f"op {order['op']!r} is not understood now"
            raise ValueError(message)

    def _report(self) -> None:
        """Tell a new master how it is; one that is coming up says so by itself."""
        if self._order is None:
            self.say(event="unopened")
        elif self._up:
            self.say(event="up")

    def _preload(self, modules: Iterable[str]) -> None:
        """Import what the group names, each once, and tell of what cannot be."""
        unimported = preload(name for name in modules if name not in self._unimported)
        self._unimported |= unimported.keys()
        for name, why in unimported.items():
            self.say(event="unimported", name=name, reason=why)

    def _open(self, order: dict[str, Any]) -> None:
        security_from(order["tls"])  # a missing field is told here, not in each child
        dask.config.set(DEFAULTS)
        config = order.get("config") or {}
        dask.config.set({name: as_value(text) for name, text in config.items()})
        dask.config.set(ENFORCED)
        scratch = os.path.abspath(order.get("local_directory") or ".")
        self._preload(map(str, order.get("preload") or ()))
        gc.freeze()  # also what was imported just now
        self._order = {**order, "local_directory": scratch}
        count = int(order.get("processes") or os.cpu_count() or 1)
        self._slots = [Slot(f"{order['name']}-{index}") for index in range(count)]

    def _refuse(self, member: str) -> None:
        if DOOR.refuse(member):  # for the children to come: a fork copies it
            self._refused.append(member[:COMMON_NAME_LENGTH])

    def _pass_on_refused(self) -> None:
        """Tell the children there are; those that left together, together."""
        refused, self._refused = self._refused, []
        for at in range(0, len(refused), REFUSED_A_LINE):
            for slot in self._slots:
                self._tell(slot, {"refuse": refused[at : at + REFUSED_A_LINE]})

    def _tell(self, slot: Slot, what: dict[str, Any]) -> None:
        if slot.control is None or slot.pid is None:
            return
        try:
            os.write(slot.control, (json.dumps(what) + "\n").encode())
        except BrokenPipeError:
            pass  # it has ended; the next one knows
        except BlockingIOError:
            # Thousands of departures that it did not read of: it hangs, and the next
            # one knows. Waiting for it would stop this loop.
            os.kill(slot.pid, signal.SIGKILL)

    def _tell_contact(self, name: str, address: str) -> None:
        """Tell a child how it is reached; "" is by its own address, as all here are."""
        self._is_direct = self._is_direct or not address
        for slot in self._slots:
            if slot.name == name:
                self._tell(slot, {"contact": address})

    def _close(self) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic() + CLOSE_WITHIN
            for slot in self._slots:
                slot.start_at = None
            self._signal_all(signal.SIGTERM)

    def _signal_all(self, number: signal.Signals) -> None:
        for slot in self._slots:
            if slot.pid is not None:  # not waited for yet: the number is still its own
                os.kill(slot.pid, number)

    def _start(self, slot: Slot) -> None:
        assert self._order is not None
        report, child_report = os.pipe()
        child_control, control = os.pipe()
        os.set_blocking(control, False)
        parent = os.getpid()
        # A signal between the fork and the child's own handlers must wait for them.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        pid = os.fork()
        if pid == 0:
            for fd in (report, control):
                os.close(fd)
            self._become_child(parent)
            run_child(self._order, Child(slot.name, child_report, child_control))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        for fd in (child_report, child_control):
            os.close(fd)
        slot.pid, slot.report, slot.control = pid, LineReader(report), control
        slot.started_at, slot.start_at = time.monotonic(), None

    def _become_child(self, parent: int) -> None:
        """Let go of what is the parent's, and die with it."""
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        reports = [slot.report.fd for slot in self._slots if slot.report is not None]
        controls = [slot.control for slot in self._slots if slot.control is not None]
        own = (self.orders.fd, self._says, self._signals, self._woken)
        for fd in (*own, *reports, *controls):
            os.close(fd)
        # Python's own generator is seeded anew at a fork, numpy's global one is not:
        # every worker would draw the same numbers.
        if "numpy.random" in sys.modules:
            sys.modules["numpy.random"].seed()

    def _on_report(self, slot: Slot) -> None:
        assert slot.report is not None
        lines, ended = slot.report.read()
        for line in map(json.loads, lines):
            if "leaving" in line:
                slot.left_because = line["leaving"]
            if "listening" in line and self._is_direct:
                self._tell(slot, {"contact": ""})
            elif "listening" in line:
                self.say(event="listening", name=slot.name, port=line["listening"])
            if "registered" in line:
                slot.registered = True
                self.say(
                    event="registered",
                    name=slot.name,
                    address=line["registered"],
                    pid=slot.pid,
                )
        if ended:
            os.close(slot.report.fd)
            slot.report = None
        if not self._up and all(slot.registered for slot in self._slots):
            self._up = True
            self.say(event="up")

    def _on_signals(self) -> None:
        numbers = os.read(self._signals, 4096)
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._close()
        for slot in self._slots:
            if slot.pid is not None:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._on_end(slot, os.waitstatus_to_exitcode(status))

    def _on_end(self, slot: Slot, code: int) -> None:
        while slot.report is not None:  # its last words; nobody else writes there
            os.set_blocking(slot.report.fd, False)
            try:
                self._on_report(slot)
            except BlockingIOError:  # a grandchild holds the other end
                os.close(slot.report.fd)
                slot.report = None
        if slot.control is not None:
            os.close(slot.control)
            slot.control = None
        pid, slot.pid = slot.pid, None
        if slot.left_because is not None:
            self._exit_code = max(self._exit_code, code)
            self.say(event="left", name=slot.name, pid=pid, reason=slot.left_because)
            return
        if self._kill_at is not None:
            return
        lived = time.monotonic() - slot.started_at
        slot.quick_deaths = slot.quick_deaths + 1 if lived < QUICK_DEATH_WITHIN else 0
        after = 0.0
        if slot.quick_deaths > 1:
            after = min(BACKOFF_MOST, BACKOFF_FIRST * 2.0 ** (slot.quick_deaths - 2))
        slot.start_at = time.monotonic() + after
        self.say(event="died", name=slot.name, pid=pid, code=code, again_after=after)


if __name__ == "__main__":
    node = Node()
    sys.exit(node.run())
