"""Where a running node's trust is decided: files, flags and people, for one role.

`policy.trust.judge` decides; the desk gives it the book on disk as it is now, keeps
the requests that wait for a person, asks on a terminal if there is one, and writes
down what was accepted.  `aemesh trust accept` changes the same files from outside;
the desk looks at their stamps, so both ways work within a fraction of a second.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh import limits
from aemesh.errors import AemeshError, RefusedError
from aemesh.host.trust import pending, trustfiles
from aemesh.host.trust.proofdesk import ProofDesk
from aemesh.host.trust.told import Told
from aemesh.host.trust.trustmemory import TrustMemory
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
from aemesh.policy.rotation import refuses_next
from aemesh.policy.terms import allow_group
from aemesh.policy.trust import (
    TrustPolicy,
    changed_key_message,
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

# A person's answer; None if there was nobody to ask.
Ask = Callable[[TrustRequest], Awaitable[bool | None]]
# Whoever is ok for one of these may have been known before, in a weaker mode.
_SEEN = frozenset({Reason.KNOWN, Reason.CERTIFIED, Reason.PRINCIPAL})
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
        self.memory = TrustMemory(
            policy.role.other, folder=folder, wall=wall, alarm=alarm, x509=x509
        )
        self.memory.on_read = self._forget_settled
        self.proofs = ProofDesk(
            policy, lambda: self.book, folder=folder, wall=wall, token=token
        )
        self.waiting: dict[KeyId, TrustRequest] = {}
        self._told = Told(audit=audit, alarm=alarm, wall=wall, knows=self.memory.knows)
        self._folder = folder
        self._wall = wall
        self._alarm = alarm
        self._replaced: dict[str, None] = {}  # codes of meetings before the present one
        self._asking, self._to_ask = trio.open_memory_channel[TrustRequest](32)

    def __repr__(self) -> str:
        return f"<TrustDesk {self.memory!r}, {len(self.waiting)} waiting>"

    @property
    def book(self) -> TrustBook:
        """What is remembered now."""
        return self.memory.book

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
        return next(self.strangers((key_id,)), None) is None

    def strangers(self, key_ids: Iterable[KeyId]) -> Iterator[KeyId]:
        """Yield those of these keys that were not accepted, after one look at files."""
        self.memory.refresh()
        for key_id in key_ids:
            if key_id not in self.policy.trusted_keys and not self.memory.knows(key_id):
                yield key_id

    def name_of(self, key_id: KeyId) -> NodeName | None:
        """Return the name under which this key was accepted, if it was."""
        known = self.book.by_key(key_id)
        return None if known is None else known.name

    def judge(
        self, peer: Peer, *, expected: KeyId | None = None, asks: bool = True
    ) -> Verdict:
        """Return the verdict on a peer, and see to it that a person is asked.

        Without `asks` nobody is, and no request is kept: what is pending stays so.
        """
        book = self.book
        if self.memory.is_unreadable:
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
            self._told.code(peer)
        waits = verdict.decision is Decision.PENDING or verdict.reason is Reason.OWNED
        if waits and asks:
            self._queue(peer, verdict.reason)
        if verdict.decision is not Decision.OK:
            self._record_once(peer, verdict)
        return verdict

    def commit(self, peer: Peer, verdict: Verdict) -> None:
        """Write down what an ok is worth keeping of, before it is acted on.

        Raises `RefusedError` when somebody else was quicker with this name.
        """
        self._told.record(peer, verdict)
        self.waiting.pop(peer.key_id, None)
        self.proofs.confirm(peer)
        if self.policy.mode is Mode.OPEN:
            return
        first = verdict.reason is Reason.FIRST_USE and self.policy.accept_first
        # Imprint once, also when two come at once.
        if first and (self.book.is_owned or self.memory.is_unreadable):
            msg = "this worker belongs to another master"
            raise RefusedError(msg)
        line = _line_of(peer, verdict, mode=self.policy.mode, day=self.memory.today)
        if line is not None and verdict.reason is Reason.CERTIFIED:
            self.memory.keep_certified(line)
        elif line is not None:
            self.memory.keep(line)
        elif verdict.reason is Reason.KNOWN:
            self.memory.drop_superseded(peer)
        if verdict.reason in _SEEN:
            self.memory.touch(peer)

    def heard(self, peer: Peer, verdict: Verdict) -> None:
        """Take note of what a peer says of us; a changed key is told loudly."""
        if verdict.reason not in (Reason.CLONE, Reason.KEY_CHANGED):
            return
        if not self._told.is_news(peer, verdict.reason):
            return
        if verdict.reason is Reason.CLONE:
            told = f"it says of us: {verdict.detail}"
            self._told.record_refused(peer, replace(verdict, detail=told))
            return
        self._told.alarm_of(
            peer,
            f"{peer.name} at {peer.address} refuses us: it knows our name with "
            f"another key than ours.  If this machine was set up anew, run "
            f"`aemesh trust forget NAME` there",
        )

    def allows_group(self, peer: Peer, group: GroupName) -> bool:
        """Whether the terms of its trust let a peer serve, or use, this group."""
        return allow_group(self.terms_of(peer), group)

    def terms_of(self, peer: Peer) -> tuple[Terms, ...]:
        """Return the terms under which a peer is let in; each has to allow a thing."""
        return terms_of(peer, self.book, now=self._wall())

    def observes(self, peer: Peer) -> bool:
        """Whether a person let this key ask about all that we do."""
        known = self.book.by_key(peer.key_id)
        return known is not None and known.observe

    def take_next_key(self, peer: Peer, following: PublicKey) -> None:
        """Write down the key that a peer will have, or raise `RefusedError`."""
        refusal = refuses_next(peer, following, self.book)
        if refusal is not None:
            what = f"the next key of {peer.name} is not taken"
            raise RefusedError(what, why=refusal)
        book = self.memory.book
        present = book.by_key(peer.key_id)
        assert present is not None, "it is in the book"
        if book.by_key(following.key_id) is not None:
            return
        told = f"next key {following.key_id}"
        self._told.record(peer, Verdict(Decision.OK, Reason.KNOWN, told))
        self.memory.keep_next(present, following)
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
            nursery.start_soon(self.memory.watch)
            nursery.start_soon(self._ask_all, ask or self._tell_command)

    async def wait_change(self) -> None:
        """Wait until trust may have changed: judge again whom you are linked to."""
        await self.memory.changed.wait()

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
                await self.memory.changed.wait()
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
        self._told.code_is_shown(peer)
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
        self.memory.tell_changed()

    def _keep_request(self, request: TrustRequest) -> None:
        if self._folder is None:
            return
        try:
            pending.write_request(self._folder, request)
        except (OSError, AemeshError) as exc:  # a full disk stops nobody from asking
            _log.warning("a request of %s is not kept: %s", request.name, exc)

    def _remember_request(self, request: TrustRequest, via: str) -> None:
        self.memory.keep(
            KnownPeer(
                name=request.name,
                key=request.key,
                via=via,
                added=self.memory.today,
                mode=self.policy.mode,
            )
        )
        self._forget_request(request)

    def _forget_request(self, request: TrustRequest) -> None:
        self.waiting.pop(request.key.key_id, None)
        if self._folder is not None:
            pending.remove_request(self._folder, request.id)

    def _forget_settled(self) -> None:
        """The files may have accepted whom a person would be asked about."""
        for key_id in [key for key in self.waiting if self.memory.knows(key)]:
            self._forget_request(self.waiting[key_id])

    def _record_once(self, peer: Peer, verdict: Verdict) -> None:
        if not self._told.is_news(peer, verdict.reason):
            return
        self._told.record_refused(peer, verdict)
        if verdict.reason is Reason.KEY_CHANGED and self._folder is not None:
            file = trustfiles.FILES[self.policy.role.other]
            path = str(self._folder / file)
            self._told.alarm_of(peer, changed_key_message(peer, self.book, file=path))


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
