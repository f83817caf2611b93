"""Where a running node's trust is decided: files, flags and people, for one role.

`policy.trust.judge` decides; the desk gives it the book on disk as it is now, keeps
the requests that wait for a person, asks on a terminal if there is one, and writes
down what was accepted.  `aemesh trust accept` changes the same files from outside;
the desk looks at their stamps, so both ways work within a fraction of a second.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError, TrustFileError
from aemesh.host.keys import nextkey
from aemesh.host.site import x509files
from aemesh.host.trust import pending, trustfiles
from aemesh.host.trust.proofdesk import ProofDesk
from aemesh.model.trust import (
    Decision,
    KnownPeer,
    Mode,
    Peer,
    Reason,
    Terms,
    TrustBook,
    TrustRequest,
    Verdict,
)
from aemesh.policy.lograte import LogRate
from aemesh.policy.rotation import refuses_next, superseded
from aemesh.policy.terms import allows_group
from aemesh.policy.trust import (
    TrustPolicy,
    changed_key_message,
    ended_between,
    judge,
    refuses_chain,
    terms_of,
)
from aemesh.tasks.nursery import open_crew

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.host.trust.auditlog import AuditLog
    from aemesh.model.jointoken import JoinToken
    from aemesh.model.key import KeyId, PublicKey
    from aemesh.model.names import GroupName, NodeName

_log = logging.getLogger(__name__)

# How old the desk's view of the files may be; four `stat` calls each time.
WATCH_EVERY = 0.5

# A person's answer; None if there was nobody to ask.
Ask = Callable[[TrustRequest], Awaitable[bool | None]]
# Whoever is ok for one of these may have been known before, in a weaker mode.
_SEEN = frozenset({Reason.KNOWN, Reason.CERTIFIED, Reason.PRINCIPAL})
_MODES = list(Mode)  # weakest first
# What is stored as `via`: how the key came to be trusted.
_VIA = {Reason.FIRST_USE: "tofu", Reason.ACCEPTED: "flag", Reason.CERTIFIED: "x509"}


class TrustDesk:
    """Judges peers for one node; `folder` None keeps everything in memory."""

    def __init__(  # noqa: PLR0913 - what it is made of, by name
        self,
        policy: TrustPolicy,
        *,
        folder: Path | None,
        wall: Callable[[], float],
        audit: AuditLog | None = None,
        alarm: Callable[[str], None] = _log.warning,
        token: JoinToken | None = None,
        x509: Path | None = None,
    ) -> None:
        self.policy = policy
        self.proofs = ProofDesk(
            policy, lambda: self.book, folder=folder, wall=wall, token=token
        )
        self.waiting: dict[KeyId, TrustRequest] = {}
        self._folder = folder
        self._x509 = x509  # where the CAs are, in mode x509
        self._wall = wall
        self._audit = audit
        self._alarm = alarm
        also = x509files.watched_paths(x509, policy.role.other) if x509 else ()
        self._files = trustfiles.TrustFolder(folder, *also) if folder else None
        self._book = TrustBook()
        self._codes: dict[KeyId, str] = {}  # shown already, of the latest meeting
        self._replaced: dict[str, None] = {}  # codes of meetings before the present one
        self._told: set[tuple[KeyId, Reason]] = set()
        self._stranger_lines = LogRate(limits.STRANGER_EVENTS_PER_MINUTE)
        self._stranger_alarms = LogRate()
        self._asking, self._to_ask = trio.open_memory_channel[TrustRequest](32)
        self._changed = trio.Event()
        self._following = False  # whether we have a next key to offer
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

    def admits(self, key_id: KeyId, chain: tuple[bytes, ...]) -> Verdict | None:
        """Return the no to what is announced before TLS, or None if there is none."""
        if self.book.is_revoked(key_id):
            return Verdict(Decision.NO, Reason.REVOKED, "the key is revoked here")
        if self.policy.mode is not Mode.X509:
            return None
        role = self.policy.role.other
        return refuses_chain(chain, self.book, role=role, now=self._wall())

    def knows(self, key_id: KeyId) -> bool:
        """Whether this key was accepted already, in the files or by a flag."""
        return key_id in self.policy.trusted_keys or _is_known(self.book, key_id)

    def name_of(self, key_id: KeyId) -> NodeName | None:
        """Return the name under which this key was accepted, if it was."""
        known = self.book.by_key(key_id)
        return None if known is None else known.name

    def judge(self, peer: Peer, *, expected: KeyId | None = None) -> Verdict:
        """Return the verdict on a peer, and see to it that a person is asked."""
        book = self.book
        if self._unreadable:
            # An empty book refuses nobody who is revoked, and has no owner.
            told = "what is trusted here cannot be read now"
            verdict = Verdict(Decision.NO, Reason.UNKNOWN, told)
        else:
            verdict = judge(
                peer, book, self.policy, expected=expected, now=self._wall()
            )
        if verdict.decision is Decision.PENDING and peer.code in self._replaced:
            # Two that took turns would withdraw each other's question for ever.
            told = "a newer meeting took the place of this one"
            verdict = Verdict(Decision.NO, Reason.TIMED_OUT, told)
        if peer.code and verdict.decision is Decision.OK:
            self._tell_code(peer)
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
        self.proofs.confirm(peer)
        if self.policy.mode is Mode.OPEN:
            return
        if verdict.reason is Reason.FIRST_USE and self.policy.accept_first:
            self._refresh()
            # Imprint once, also when two come at once.
            if self._unreadable or self._book.is_owned:
                msg = "this worker belongs to another master"
                raise RefusedError(msg)
        line = _line_of(peer, verdict, mode=self.policy.mode, day=self._today())
        if line is not None and verdict.reason is Reason.CERTIFIED:
            self._keep_certified(line)
        elif line is not None:
            self._keep(line)
        elif verdict.reason is Reason.KNOWN:
            self._drop_superseded(peer)
        if verdict.reason in _SEEN:
            self._touch(peer)

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Take note of what a peer says of us; a changed key is told loudly."""
        if verdict.reason is Reason.CLONE and self._news(peer, verdict.reason):
            told = f"it says of us: {verdict.detail}"
            self._record_refused(peer, replace(verdict, detail=told))
        if verdict.reason is Reason.KEY_CHANGED and self._news(peer, verdict.reason):
            self._alarm_of(
                peer,
                f"{peer.name} at {peer.address} refuses us: it knows our name with "
                f"another key than ours.  If this machine was set up anew, run "
                f"`aemesh trust forget NAME` there",
            )

    def allows_group(self, peer: Peer, group: GroupName) -> bool:
        """Whether the terms of its trust let a peer serve, or use, this group."""
        terms = terms_of(peer, self.book, now=self._wall())
        return all(allows_group(each, group) for each in terms)

    def take_next_key(self, peer: Peer, following: PublicKey) -> None:
        """Write down the key that a peer will have, or raise `RefusedError`."""
        refusal = refuses_next(peer, following, self.book)
        if refusal is not None:
            what = f"the next key of {peer.name} is not taken"
            raise RefusedError(what, why=refusal)
        present = self._book.by_key(peer.key_id)
        assert present is not None, "it is in the book"
        if self._book.by_key(following.key_id) is not None:
            return
        self._record(
            peer, Verdict(Decision.OK, Reason.KNOWN, f"next key {following.key_id}")
        )
        day = self._today()
        if self._folder is None:
            line = replace(present, key=following, added=day, last="")
            self._book = replace(self._book, known=(*self._book.known, line))
            return
        role = self.policy.role.other
        try:
            trustfiles.add_next_key(self._folder, role, present, following, day=day)
        except (AemeshError, OSError) as exc:
            # Why is ours: it has paths of this machine, and the peer reads this.
            _log.warning("the next key of %s is not taken: %s", peer.name, exc)
            what = f"the next key of {peer.name} is not taken"
            raise RefusedError(what, why="it cannot be written down here") from exc
        _log.info("%s will have the key %s", peer.name, following.key_id)

    def accept(self, request: TrustRequest, *, via: str) -> None:
        """Trust the key of a request from now on."""
        self._remember_request(request, via)
        self.waiting.pop(request.key.key_id, None)

    def decline(self, request: TrustRequest) -> None:
        """Refuse the key of a request until this node is started again."""
        declined = self.policy.declined | {request.key.key_id}
        self.policy = self.proofs.policy = replace(self.policy, declined=declined)
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
        looked_at = self._wall()
        while True:
            self._refresh()
            await trio.sleep(WATCH_EVERY)
            now = self._wall()
            if ended_between(self._book, looked_at, now):
                self._tell_changed()  # nobody wrote anything: time has passed
            looked_at = now

    async def _ask_all(self, ask: Ask) -> None:
        async for request in self._to_ask:
            if self.waiting.get(request.key.key_id) is not request:
                continue  # settled on another terminal, or asked anew
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
            while self.waiting.get(request.key.key_id) is request:
                await self._changed.wait()
            crew.cancel_scope.cancel()
        return answer

    def _settle(self, request: TrustRequest, *, accepted: bool) -> None:
        if accepted:
            self.accept(request, via="sas" if request.code else "prompt")
        else:
            self.decline(request)

    async def _tell_command(self, request: TrustRequest) -> bool | None:
        key_id = request.key.key_id
        both = f'; both sides show "{request.code}"' if request.code else ""
        _log.info(
            '%s at %s waits for trust: %s "%s"%s; run `aemesh trust accept %s` here',
            request.name,
            request.address,
            key_id,
            key_id.words,
            both,
            request.id,
        )
        return None

    def _refresh(self) -> None:
        if self._files is not None and self._files.changed():
            self._read()

    def _read(self) -> None:
        if self._folder is None:
            return
        before = self._book, bool(self._unreadable)
        try:
            self._book = self._read_book(self._folder)
        except (AemeshError, OSError) as exc:
            # Fail closed: nobody is known until the file is mended.
            self._book = TrustBook()
            self._tell_unreadable(exc)
        else:
            self._unreadable = ""
        following = nextkey.has_next(self._folder)
        for key_id in [k for k in self.waiting if _is_known(self._book, k)]:
            self._forget_request(self.waiting[key_id])
        # Not for a request that was only written down: who waits for a change asks
        # again, and would be written down again.
        now = self._book, bool(self._unreadable)
        if now != before or following != self._following:
            self._following = following
            self._tell_changed()

    def _read_book(self, folder: Path) -> TrustBook:
        book = trustfiles.read_book(folder, self.policy.role.other)
        if self._x509 is None:
            return book
        anchors = x509files.read_anchors(self._x509, self.policy.role.other)
        return replace(book, anchors=anchors)

    def _tell_code(self, peer: Peer) -> None:
        """Show our half of the code although nobody is asked here: there they are."""
        if self._codes.get(peer.key_id) != peer.code:
            self._show_code(peer)
            _log.info('%s: both sides show "%s"', peer.name, peer.code)

    def _show_code(self, peer: Peer) -> None:
        """Note that the code of a meeting has been shown here."""
        if len(self._codes) >= limits.PENDING_REQUESTS:
            del self._codes[next(iter(self._codes))]
        self._codes[peer.key_id] = peer.code

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
        waiting = self.waiting.get(peer.key_id)
        if waiting is not None and waiting.code == peer.code:
            return
        request = TrustRequest(
            role=peer.role,
            name=peer.name,
            key=peer.key,
            address=peer.address,
            reason=reason,
            asked_at=self._wall(),
            code=peer.code,
            tries=self.proofs.tries(peer.key_id),
        )
        self._keep_request(request)
        self._show_code(peer)
        if reason is Reason.OWNED:
            return  # it is refused now; its owner finds the request in the list
        self.waiting[peer.key_id] = request
        if waiting is not None:
            self._replace(waiting.code)
        if len(self.waiting) > limits.PENDING_REQUESTS:
            # It asks again if it is still there.
            del self.waiting[next(iter(self.waiting))]
        with suppress(trio.WouldBlock):  # it waits in pending/ all the same
            self._asking.send_nowait(request)

    def _replace(self, code: str) -> None:
        """Withdraw the question of an earlier meeting of the same key."""
        if code:
            self._replaced[code] = None
        if len(self._replaced) > limits.PENDING_REQUESTS:
            del self._replaced[next(iter(self._replaced))]
        self._tell_changed()

    def _keep_request(self, request: TrustRequest) -> None:
        if self._folder is None:
            return
        try:
            pending.write_request(self._folder, request)
        except (OSError, AemeshError) as exc:  # a full disk stops nobody from asking
            _log.warning("a request of %s is not kept: %s", request.name, exc)

    def _touch(self, peer: Peer) -> None:
        """Note that a known peer was here, once a day, and in which mode (T11)."""
        day = self._today()
        known = self._book.by_key(peer.key_id)
        if self._folder is None or known is None:
            return
        stronger = _MODES.index(peer.mode) > _MODES.index(known.mode)
        if known.last == day and not stronger:
            return
        try:
            role = self.policy.role.other
            trustfiles.touch_last(self._folder, role, peer.key, day, mode=peer.mode)
        except (OSError, AemeshError) as exc:
            _log.warning("%s is not noted as seen today: %s", peer.name, exc)

    def _drop_superseded(self, peer: Peer) -> None:
        """Forget the key before: its owner came with the next one."""
        for line in superseded(peer, self._book):
            _log.info("%s has the key %s now", line.name, peer.key_id)
            if self._folder is not None:
                trustfiles.drop_key(self._folder, self.policy.role.other, line)
            else:
                known = tuple(one for one in self._book.known if one != line)
                self._book = replace(self._book, known=known)

    def _today(self) -> str:
        return _day(self._wall())

    def _keep_certified(self, line: KnownPeer) -> None:
        """Keep a certified peer; under its name it may have had another key.

        The CA vouches for the name, so a machine that was set up anew comes in; a
        line that anybody else wrote about that name stands.
        """
        old = self._book.by_name(line.name)
        if old is not None and old.key != line.key and old.via == line.via:
            line = replace(line, terms=old.terms)
            if self._folder is not None:
                key_id = str(old.key.key_id)
                trustfiles.forget(self._folder, self.policy.role.other, key_id)
            else:
                known = tuple(one for one in self._book.known if one != old)
                self._book = replace(self._book, known=known)
        self._keep(line)

    def _keep(self, line: KnownPeer) -> None:
        if self._folder is None:
            self._book = replace(self._book, known=(*self._book.known, line))
        else:
            try:
                trustfiles.add(self._folder, self.policy.role.other, line)
            except OSError as exc:
                what = f"{line.name} cannot be remembered in {self._folder}"
                raise TrustFileError(what, why=exc.strerror) from exc
            self._refresh()

    def _remember_request(self, request: TrustRequest, via: str) -> None:
        self._keep(
            KnownPeer(
                name=request.name,
                key=request.key,
                via=via,
                added=self._today(),
                mode=self.policy.mode,
            )
        )
        self._forget_request(request)

    def _forget_request(self, request: TrustRequest) -> None:
        self.waiting.pop(request.key.key_id, None)
        if self._folder is not None:
            pending.remove_request(self._folder, request.id)

    def _record_once(self, peer: Peer, verdict: Verdict) -> None:
        if not self._news(peer, verdict.reason):
            return
        self._record_refused(peer, verdict)
        if verdict.reason is Reason.KEY_CHANGED and self._folder is not None:
            file = trustfiles.FILES[self.policy.role.other]
            path = str(self._folder / file)
            self._alarm_of(peer, changed_key_message(peer, self._book, file=path))

    def _news(self, peer: Peer, reason: Reason) -> bool:
        """Whether this was not told yet; a full set forgets, and tells again."""
        if len(self._told) > 1024:
            self._told.clear()
        news = (peer.key_id, reason) not in self._told
        self._told.add((peer.key_id, reason))
        return news

    def _record_refused(self, peer: Peer, verdict: Verdict) -> None:
        """Write down a refusal; those of strangers at a bounded rate (threat 89).

        A stranger has a new key whenever it likes, and with it everything is news.
        """
        if not _is_known(self._book, peer.key_id):
            turn = self._stranger_lines.turn(now=time.monotonic())
            if turn.left_out:
                told = "%d refusals of strangers are not in the audit log"
                _log.warning(told, turn.left_out)
            if not turn.write:
                return
        self._record(peer, verdict)

    def _alarm_of(self, peer: Peer, text: str) -> None:
        """Tell the user loudly; what strangers bring about, at a bounded rate."""
        known = _is_known(self._book, peer.key_id)
        if known or self._stranger_alarms.turn(now=time.monotonic()).write:
            self._alarm(text)

    def _record(self, peer: Peer, verdict: Verdict) -> None:
        if self._audit is not None:
            self._audit.write(peer, verdict, now=self._wall())


def _is_known(book: TrustBook, key_id: KeyId) -> bool:
    return book.by_key(key_id) is not None or book.authorizes(key_id)


def _line_of(peer: Peer, verdict: Verdict, *, mode: Mode, day: str) -> KnownPeer | None:
    """Return the line that a first ok is worth, or None if there is none to write."""
    via = _VIA.get(verdict.reason)
    if verdict.reason is Reason.TOKEN and peer.token is not None:
        via = f"token:{peer.token.id}"
    elif verdict.reason is Reason.PRINCIPAL:
        via = f"gss:{peer.principal}"
    if via is None:
        return None
    return KnownPeer(
        name=peer.name,
        key=peer.key,
        via=via,
        added=day,
        mode=Mode.TOKEN if verdict.reason is Reason.TOKEN else mode,
        terms=peer.token.terms if peer.token else Terms(),
    )


def _day(now: float) -> str:
    return dt.datetime.fromtimestamp(now, dt.UTC).strftime("%Y%m%d")
