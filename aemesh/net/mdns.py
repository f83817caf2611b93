"""Multicast DNS: the only file that knows zeroconf.

zeroconf runs its own thread with an asyncio loop; parsing what strangers send stays
there.  Its handlers do as little as they can: they take what came in the same packet
from zeroconf's cache and put it in a bounded queue, from which trio reads.

Announcing skips RFC 6762's probes, for our instance names are unique by construction,
and returns with the first packet on the wire (1 ms); the two repeats follow behind.
Each service has a host name of its own (``aemesh-….local.``), so that our A and AAAA
records never touch those that avahi announces for the machine.

On a machine without a network nothing is sent and nothing heard, until `rebind`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import trio
import zeroconf
from zeroconf import IPVersion, ServiceStateChange, Zeroconf
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo

from aemesh import limits
from aemesh.errors import BugError, SettingsError
from aemesh.model.address import Address
from aemesh.net.sighting import Gone, Heard
from aemesh.protocol.announcement import service_type

if TYPE_CHECKING:
    import concurrent.futures
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping

    from aemesh.model.trust import Role
    from aemesh.net.interfaces import LocalAddress

_log = logging.getLogger(__name__)
# It logs the text of packets that it cannot read; what strangers say is not shown.
_theirs = logging.getLogger("zeroconf")

# Before these, a packet of compression pointers could stop the process (threat 63).
_OLDEST = (0, 150)

_T = TypeVar("_T")


class Browser:
    """What is heard of one role; made by `Mdns.browse`.

    Two bounded queues: names that are wanted are told first, and a flood of others
    does not take their place.  What is dropped is counted; wanted names are then
    looked up again in zeroconf's cache.
    """

    def __init__(self, kind: str, wanted: Callable[[], frozenset[str]]) -> None:
        self.kind = kind
        self.dropped = 0
        self._wanted = wanted
        self._first: deque[Heard | Gone] = deque()
        self._others: deque[Heard | Gone] = deque()
        self._made_up_for = 0
        self._token = trio.lowlevel.current_trio_token()
        self._came = trio.Event()
        self._asks: set[asyncio.Task[None]] = set()
        self._browser: AsyncServiceBrowser | None = None

    def __repr__(self) -> str:
        waiting = len(self._first) + len(self._others)
        return f"<Browser {self.kind} {waiting} waiting, {self.dropped} dropped>"

    async def receive(self) -> Heard | Gone:
        """Return the next event; waits for one."""
        while True:
            for queue in (self._first, self._others):
                if queue:
                    await trio.lowlevel.checkpoint()
                    return queue.popleft()
            self._came = trio.Event()
            if self.dropped > self._made_up_for and self._browser is not None:
                loop = _loop_of(self._browser.zc)
                loop.call_soon_threadsafe(self._look_again, self._browser.zc)
            await self._came.wait()

    # --- on zeroconf's thread -------------------------------------------------

    async def attach(self, zc: Zeroconf) -> None:
        """Start to ask and to listen."""
        self._browser = AsyncServiceBrowser(zc, self.kind, handlers=[self._changed])

    async def detach(self) -> None:
        """Stop it."""
        for task in self._asks:
            task.cancel()
        if self._browser is not None:
            await self._browser.async_cancel()
            self._browser = None

    def _changed(
        self,
        zeroconf: Zeroconf,
        service_type: str,  # noqa: ARG002 - zeroconf gives it by name
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if state_change is ServiceStateChange.Removed:
            self._put(Gone(self._instance(name)))
            return
        told = self._tell(zeroconf, name)
        if not told and state_change is ServiceStateChange.Added:
            self._ask(zeroconf, name)

    def _tell(self, zc: Zeroconf, name: str) -> bool:
        """Put what the cache has of a name in the queue; False if it has no TXT."""
        try:
            info = AsyncServiceInfo(self.kind, name)
        except zeroconf.Error:
            return True  # not a name of this type: nothing to ask for
        info.load_from_cache(zc)
        return self._put_info(info)

    def _put_info(self, info: AsyncServiceInfo) -> bool:
        if not info.text:
            return False
        scoped = info.parsed_scoped_addresses(IPVersion.V6Only)
        pairs = (address.partition("%") for address in scoped)
        scopes = {host: scope for host, _, scope in pairs if scope}
        self._put(
            Heard(
                self._instance(info.name),
                dict(info.properties),
                scopes,
                _addresses(info),
            )
        )
        return True

    def _ask(self, zc: Zeroconf, name: str) -> None:
        if len(self._asks) >= limits.MDNS_ASKS_AT_ONCE:
            self.dropped += 1
            return
        task = asyncio.ensure_future(self._ask_for(zc, name))
        self._asks.add(task)
        task.add_done_callback(self._asks.discard)

    async def _ask_for(self, zc: Zeroconf, name: str) -> None:
        info = AsyncServiceInfo(self.kind, name)
        await info.async_request(zc, limits.MDNS_ASK_AFTER * 1000)
        self._put_info(info)

    def _put(self, event: Heard | Gone) -> None:
        wanted = event.instance in self._wanted()
        queue = self._first if wanted else self._others
        if len(queue) >= limits.MDNS_EVENTS_WAITING:
            self.dropped += 1
            return
        queue.append(event)
        self._wake()

    def _look_again(self, zc: Zeroconf) -> None:
        for instance in self._wanted():
            self._tell(zc, f"{instance}.{self.kind}")
        self._made_up_for = self.dropped

    def _wake(self) -> None:
        # The trio side may have ended without us.
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._set_came, idempotent=True)

    # --- on both --------------------------------------------------------------

    def _set_came(self) -> None:
        self._came.set()

    def _instance(self, name: str) -> str:
        return name.removesuffix(f".{self.kind}")


class Mdns:
    """The responder and the browsers of one node; made by `open_mdns`."""

    def __init__(self) -> None:
        self._zc: Zeroconf | None = None
        self._infos: dict[str, AsyncServiceInfo] = {}
        self._browsers: set[Browser] = set()
        self._repeats: dict[str, asyncio.Future[None]] = {}

    def __repr__(self) -> str:
        state = "off the network" if self._zc is None else "on the network"
        return f"<Mdns {state}, {len(self._infos)} announced>"

    @property
    def is_open(self) -> bool:
        """Whether there is a network to speak on, as far as we know."""
        return self._zc is not None

    async def announce(
        self,
        role: Role,
        instance: str,
        *,
        port: int,
        txt: Mapping[str, str],
        hosts: Iterable[str],
    ) -> None:
        """Announce an instance or, if it is announced, what is new of it.

        Returns when it was sent the first time.  `port` and `hosts` are for standard
        browsers; ours read the TXT.
        """
        kind = _kind(role)
        info = AsyncServiceInfo(
            kind,
            f"{instance}.{kind}",
            port=port,
            properties=dict(txt),
            server=f"{instance}.local.",
            parsed_addresses=[host.partition("%")[0] for host in hosts],
        )
        self._infos[info.name] = info
        if self._zc is not None:
            await _on_thread(self._zc, self._send(self._zc, info))

    async def withdraw(self, role: Role, instance: str) -> None:
        """Announce an instance no longer; says good-bye once, at once."""
        kind = _kind(role)
        info = self._infos.pop(f"{instance}.{kind}", None)
        if info is not None and self._zc is not None:
            await _on_thread(self._zc, self._retract(self._zc, info))

    @asynccontextmanager
    async def browse(
        self, role: Role, *, wanted: Callable[[], frozenset[str]] = frozenset
    ) -> AsyncIterator[Browser]:
        """Listen for instances of `role`; `wanted` names those that count most.

        `wanted` is called on another thread.
        """
        browser = Browser(_kind(role), wanted)
        self._browsers.add(browser)
        try:
            if self._zc is not None:
                await _on_thread(self._zc, browser.attach(self._zc))
            yield browser
        finally:
            self._browsers.discard(browser)
            if self._zc is not None:
                with trio.CancelScope(shield=True):
                    await _on_thread(self._zc, browser.detach())

    async def rebind(self, addresses: Iterable[LocalAddress]) -> None:
        """Use these addresses of ours, and no others, from now on.

        Announces all again, and asks again, where an interface is new; that takes half
        a second.
        """
        interfaces = _interfaces(addresses)
        try:
            if self._zc is not None:
                await _on_thread(self._zc, self._change(self._zc, interfaces))
            elif interfaces:
                await self._open(interfaces)
        except (OSError, RuntimeError) as exc:
            # An interface that went away meanwhile, a port taken by another program:
            # nodes still find each other by seeds, and the next change tries again.
            # `str`, for a kept log record would keep the sockets in its traceback.
            why = str(exc)
            _log.warning("multicast DNS on %d interfaces: %s", len(interfaces), why)

    async def close(self) -> None:
        """Say goodbye and end the thread, in `GOODBYE_AFTER` at most."""
        zc, self._zc = self._zc, None
        if zc is None:
            return
        with trio.CancelScope(shield=True), trio.move_on_after(limits.GOODBYE_AFTER):
            await _on_thread(zc, self._end_tasks())
            await trio.to_thread.run_sync(zc.close, abandon_on_cancel=True)

    async def _open(self, interfaces: list[str | int]) -> None:
        def make() -> Zeroconf:
            return Zeroconf(interfaces=interfaces, use_asyncio=False)

        # A cancelled start must not leave a thread that answers for us.
        with trio.CancelScope(shield=True):
            self._zc = zc = await trio.to_thread.run_sync(make)
        for browser in tuple(self._browsers):
            await _on_thread(zc, browser.attach(zc))
        for info in tuple(self._infos.values()):
            await _on_thread(zc, self._send(zc, info))

    # --- on zeroconf's thread -------------------------------------------------

    async def _send(self, zc: Zeroconf, info: AsyncServiceInfo) -> None:
        # The repeats of an older announcement would bring back what it said.
        before = self._repeats.pop(info.name, None)
        if before is not None:
            before.cancel()
        if zc.registry.async_get_info_name(info.name) is None:
            repeats = await zc.async_register_service(info, cooperating_responders=True)
        else:
            repeats = await zc.async_update_service(info)
        self._repeats[info.name] = asyncio.ensure_future(repeats)
        # The task that sends starts at the loop's next turn.
        await asyncio.sleep(0)

    async def _retract(self, zc: Zeroconf, info: AsyncServiceInfo) -> None:
        before = self._repeats.pop(info.name, None)
        if before is not None:
            before.cancel()
        known = zc.registry.async_get_info_name(info.name)
        if known is not None:
            repeats = await zc.async_unregister_service(known)
            self._repeats[info.name] = asyncio.ensure_future(repeats)
            await asyncio.sleep(0)  # the task that sends starts at the next turn

    async def _change(self, zc: Zeroconf, interfaces: list[str | int]) -> None:
        await zc.async_update_interfaces(interfaces)
        # An old browser asks only when what it knows is about to expire, in an hour:
        # it would not find those who are already on the new network.
        for browser in tuple(self._browsers):
            await browser.detach()
            if browser in self._browsers:
                await browser.attach(zc)

    async def _end_tasks(self) -> None:
        for repeats in self._repeats.values():
            repeats.cancel()
        for browser in tuple(self._browsers):
            await browser.detach()


@asynccontextmanager
async def open_mdns(addresses: Iterable[LocalAddress]) -> AsyncIterator[Mdns]:
    """Speak and listen on these addresses; says goodbye at the block's end."""
    _check_version(zeroconf.__version__)
    if _theirs.level == logging.NOTSET:
        _theirs.setLevel(logging.CRITICAL)
    mdns = Mdns()
    try:
        await mdns.rebind(addresses)
        yield mdns
    finally:
        await mdns.close()


def _check_version(text: str) -> None:
    version = tuple(int(part) for part in text.split(".")[:2])
    if version < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        msg = "anybody on the network can stop the zeroconf that is installed"
        raise SettingsError(
            msg,
            why=f"it is {text}; aemesh needs {oldest} or later",
            hint=f"pip install 'zeroconf>={oldest}'",
        )


def _addresses(info: AsyncServiceInfo) -> tuple[Address, ...]:
    """Return where the SRV, A and AAAA records of a packet point to."""
    hosts = info.parsed_addresses()[: limits.ANNOUNCED_ADDRESSES]
    return tuple(Address(host, info.port or 0) for host in hosts)


def _kind(role: Role) -> str:
    return f"{service_type(role)}.local."


def _interfaces(addresses: Iterable[LocalAddress]) -> list[str | int]:
    """Return them as zeroconf wants them: IPv4 addresses, indexes for IPv6."""
    wanted: dict[str | int, None] = {}
    for address in addresses:
        if ":" not in address.host:
            wanted[address.host] = None
        elif address.host != "::1":  # loopback has no IPv6 multicast
            with contextlib.suppress(OSError):  # gone meanwhile
                wanted[socket.if_nametoindex(address.interface)] = None
    return list(wanted)


def _loop_of(zc: Zeroconf) -> asyncio.AbstractEventLoop:
    if zc.loop is None:
        msg = "zeroconf has no loop"
        raise BugError(msg)
    return zc.loop


async def _on_thread(zc: Zeroconf, job: Coroutine[Any, Any, _T]) -> _T:
    """Run `job` on zeroconf's loop and wait for it here."""
    token, done = trio.lowlevel.current_trio_token(), trio.Event()

    def ended(_: concurrent.futures.Future[_T]) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            token.run_sync_soon(done.set)

    future = asyncio.run_coroutine_threadsafe(job, _loop_of(zc))
    future.add_done_callback(ended)
    try:
        await done.wait()
    except trio.Cancelled:
        future.cancel()
        raise
    return future.result()
