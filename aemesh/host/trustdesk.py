"""Where a running node's trust is decided: files, flags and people, for one role.

`policy.trust.judge` decides; the desk gives it the book on disk as it is now, keeps
the requests that wait for a person, asks on a terminal if there is one, and writes
down what was accepted.  `aemesh trust accept` changes the same files from outside;
the desk looks at their stamps, so both ways work within a fraction of a second.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, TrustFileError
from aemesh.host import pending, trustfiles
from aemesh.model.trust import (
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Reason,
    TrustBook,
    TrustRequest,
    Verdict,
)
from aemesh.policy.trust import TrustPolicy, changed_key_message, judge
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.host.auditlog import AuditLog
    from aemesh.model.key import KeyId, PublicKey
    from aemesh.model.names import NodeName

_log = logging.getLogger(__name__)

# How old the desk's view of the files may be; four `stat` calls each time.
WATCH_EVERY = 0.5

# A person's answer; None if there was nobody to ask.
Ask = Callable[[TrustRequest], Awaitable[bool | None]]
# What is stored as `via`: how the key came to be trusted.
_VIA = {Reason.FIRST_USE: "tofu", Reason.ACCEPTED: "flag"}


class TrustDesk:
    """Judges peers for one node; `folder` None keeps everything in memory."""

    def __init__(
        self,
        policy: TrustPolicy,
        *,
        folder: Path | None,
        wall: Callable[[], float],
        audit: AuditLog | None = None,
        alarm: Callable[[str], None] = _log.warning,
    ) -> None:
        self.policy = policy
        self.waiting: dict[KeyId, TrustRequest] = {}
        self._folder = folder
        self._wall = wall
        self._audit = audit
        self._alarm = alarm
        self._files = trustfiles.TrustFolder(folder) if folder else None
        self._book = TrustBook()
        self._told: set[tuple[KeyId, Reason]] = set()
        self._asking, self._to_ask = trio.open_memory_channel[TrustRequest](32)
        self._changed = trio.Event()
        self._unreadable = ""  # why, if the files cannot be read
        self._read()

    def __repr__(self) -> str:
        known = len(self._book.known)
        return f"<TrustDesk {known} known, {len(self.waiting)} waiting>"

    @property
    def book(self) -> TrustBook:
        """What is remembered now."""
        self._refresh()
        return self._book

    def admits(self, key: PublicKey) -> bool:
        """Whether an announced key is worth a TLS handshake: it is not revoked."""
        return not self.book.is_revoked(key.key_id)

    def knows(self, key_id: KeyId) -> bool:
        """Whether this key was accepted already, in the files or by a flag."""
        return key_id in self.policy.trusted_keys or bool(self.book.by_key(key_id))

    def name_of(self, key_id: KeyId) -> NodeName | None:
        """Return the name under which this key was accepted, if it was."""
        known = self.book.by_key(key_id)
        return None if known is None else known.name

    def judge(self, peer: Peer, *, expected: KeyId | None = None) -> Verdict:
        """Return the verdict on a peer, and see to it that a person is asked."""
        verdict = judge(peer, self.book, self.policy, expected=expected)
        if verdict.decision is Decision.PENDING or verdict.reason is Reason.OWNED:
            self._queue(peer, verdict.reason)
        if verdict.decision is not Decision.OK:
            self._record_once(peer, verdict)
        return verdict

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Write down what an ok is worth keeping of, before it is acted on.

        Raises `RefusedError` when somebody else was quicker with this name.
        """
        self._record(peer, verdict)
        self.waiting.pop(peer.key_id, None)
        via = _VIA.get(verdict.reason)
        if via is not None and self.policy.mode is not Mode.OPEN:
            if verdict.reason is Reason.FIRST_USE and self.policy.accept_first:
                self._refresh()
                if self._book.known:  # imprint once, also when two come at once
                    msg = "this worker belongs to another master"
                    raise RefusedError(msg)
            self._remember(peer.name, peer.key, via)

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Take note of what a peer says of us; a changed key is told loudly."""
        if verdict.reason is Reason.KEY_CHANGED and self._news(peer, verdict.reason):
            self._alarm(
                f"{peer.name} at {peer.address} refuses us: it knows our name with "
                f"another key than ours.  If this machine was set up anew, run "
                f"`aemesh trust forget NAME` there"
            )

    def accept(self, request: TrustRequest, *, via: str) -> None:
        """Trust the key of a request from now on."""
        self._remember_request(request, via)
        self.waiting.pop(request.key.key_id, None)

    def decline(self, request: TrustRequest) -> None:
        """Refuse the key of a request until this node is started again."""
        declined = self.policy.declined | {request.key.key_id}
        self.policy = replace(self.policy, declined=declined)
        self._forget_request(request)

    async def run(self, ask: Ask | None) -> None:
        """Watch the files, and ask a person about each request in turn.

        Without anybody to ask, the log says which command deals with a request.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._ask_all, ask or self._tell_command)

    async def wait_change(self) -> None:
        """Wait until trust may have changed: judge again whom you are linked to."""
        await self._changed.wait()

    async def _watch(self) -> None:
        while True:
            self._refresh()
            await trio.sleep(WATCH_EVERY)

    async def _ask_all(self, ask: Ask) -> None:
        async for request in self._to_ask:
            if request.key.key_id not in self.waiting:
                continue  # settled meanwhile, on another terminal
            try:
                answer = await self._answer(ask, request)
                if answer is not None:
                    self._settle(request, accepted=answer)
            except AemeshError as exc:
                self._alarm(str(exc))

    async def _answer(self, ask: Ask, request: TrustRequest) -> bool | None:
        """Return the answer; None if the request is settled elsewhere before it."""
        answer = None

        async def ask_once() -> None:
            nonlocal answer
            answer = await ask(request)
            crew.cancel_scope.cancel()

        async with open_crew() as crew:
            crew.start_soon(ask_once)
            while request.key.key_id in self.waiting:
                await self._changed.wait()
            crew.cancel_scope.cancel()
        return answer

    def _settle(self, request: TrustRequest, *, accepted: bool) -> None:
        if accepted:
            self.accept(request, via="prompt")
        else:
            self.decline(request)

    async def _tell_command(self, request: TrustRequest) -> bool | None:
        key_id = request.key.key_id
        _log.info(
            '%s at %s waits for trust: %s "%s"; run `aemesh trust accept %s` here',
            request.name,
            request.address,
            key_id,
            key_id.words,
            request.id,
        )
        return None

    def _refresh(self) -> None:
        if self._files is not None and self._files.changed():
            self._read()

    def _read(self) -> None:
        if self._folder is None:
            return
        before = self._book
        try:
            self._book = trustfiles.read_book(self._folder, self.policy.role.other)
        except (AemeshError, OSError) as exc:
            # Fail closed: nobody is known until the file is mended.
            self._book = TrustBook()
            self._tell_unreadable(exc)
        else:
            self._unreadable = ""
        for key_id in [k for k in self.waiting if self._book.by_key(k)]:
            self._forget_request(self.waiting[key_id])
        # Not for a request that was only written down: who waits for a change asks
        # again, and would be written down again.
        if self._book != before:
            self._tell_changed()

    def _tell_unreadable(self, error: AemeshError | OSError) -> None:
        """Say, once, why nobody is trusted; what was no word of ours passes by itself.

        Out of file descriptors, or a disk that is away: nothing in the folder changes
        when that is over, so the files are looked at again.
        """
        if isinstance(error, OSError) and self._files is not None:
            self._files.look_again()
        if str(error) != self._unreadable:
            self._unreadable = str(error)
            self._alarm(f"{error}; nobody is trusted until it is mended")

    def _tell_changed(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _queue(self, peer: Peer, reason: Reason) -> None:
        if peer.key_id in self.waiting:
            return
        request = TrustRequest(
            role=peer.role,
            name=peer.name,
            key=peer.key,
            address=peer.address,
            reason=reason,
            asked_at=self._wall(),
        )
        self._keep_request(request)
        if reason is Reason.OWNED:
            return  # it is refused now; its owner finds the request in the list
        self.waiting[peer.key_id] = request
        if len(self.waiting) > limits.PENDING_REQUESTS:
            # It asks again if it is still there.
            del self.waiting[next(iter(self.waiting))]
        with suppress(trio.WouldBlock):  # it waits in pending/ all the same
            self._asking.send_nowait(request)

    def _keep_request(self, request: TrustRequest) -> None:
        if self._folder is None:
            return
        try:
            pending.write_request(self._folder, request)
        except (OSError, AemeshError) as exc:  # a full disk stops nobody from asking
            _log.warning("a request of %s is not kept: %s", request.name, exc)

    def _remember(self, name: NodeName, key: PublicKey, via: str) -> None:
        line = KnownPeer(
            name=name,
            key=key,
            via=via,
            added=_day(self._wall()),
            mode=self.policy.mode,
        )
        if self._folder is None:
            self._book = replace(self._book, known=(*self._book.known, line))
        else:
            try:
                trustfiles.add(self._folder, self.policy.role.other, line)
            except OSError as exc:
                what = f"{name} cannot be remembered in {self._folder}"
                raise TrustFileError(what, why=exc.strerror) from exc
            self._refresh()

    def _remember_request(self, request: TrustRequest, via: str) -> None:
        self._remember(request.name, request.key, via)
        self._forget_request(request)

    def _forget_request(self, request: TrustRequest) -> None:
        self.waiting.pop(request.key.key_id, None)
        if self._folder is not None:
            pending.remove_request(self._folder, request.id)

    def _record_once(self, peer: Peer, verdict: Verdict) -> None:
        if not self._news(peer, verdict.reason):
            return
        self._record(peer, verdict)
        if verdict.reason is Reason.KEY_CHANGED and self._folder is not None:
            file = trustfiles.FILES[self.policy.role.other]
            path = str(self._folder / file)
            self._alarm(changed_key_message(peer, self._book, file=path))

    def _news(self, peer: Peer, reason: Reason) -> bool:
        """Whether this was not told yet; a full set forgets, and tells again."""
        if len(self._told) > 1024:
            self._told.clear()
        news = (peer.key_id, reason) not in self._told
        self._told.add((peer.key_id, reason))
        return news

    def _record(self, peer: Peer, verdict: Verdict) -> None:
        if self._audit is not None:
            self._audit.write(peer, verdict, now=self._wall())


def _day(now: float) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%d")
