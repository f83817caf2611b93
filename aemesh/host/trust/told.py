"""What was told of peers: to the user, and to the audit log; once, and not too often.

A stranger has a new key whenever it likes, and with it everything is news: what
strangers bring about is told at a bounded rate (threat 89).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.policy.lograte import LogRate

if TYPE_CHECKING:
    from collections.abc import Callable

    from aemesh.host.trust.auditlog import AuditLog
    from aemesh.model.key import KeyId
    from aemesh.model.trust import Peer, Reason, Verdict

_log = logging.getLogger(__name__)
_TOLD = 1024


class Told:
    """Tells for one desk; `knows` says who is no stranger."""

    def __init__(
        self,
        *,
        audit: AuditLog | None,
        alarm: Callable[[str], None],
        wall: Callable[[], float],
        knows: Callable[[KeyId], bool],
    ) -> None:
        self._audit = audit
        self._alarm = alarm
        self._wall = wall
        self._knows = knows
        self._told: set[tuple[KeyId, Reason]] = set()
        self._codes: dict[KeyId, str] = {}  # shown already, of the latest meeting
        self._lines = LogRate(limits.STRANGER_EVENTS_PER_MINUTE)
        self._alarms = LogRate()

    def record(self, peer: Peer, verdict: Verdict) -> None:
        """Write a verdict into the audit log."""
        if self._audit is not None:
            self._audit.write(peer, verdict, now=self._wall())

    def record_refused(self, peer: Peer, verdict: Verdict) -> None:
        """Write down a refusal; those of strangers at a bounded rate."""
        if not self._knows(peer.key_id):
            turn = self._lines.turn(now=time.monotonic())
            if turn.left_out:
                told = "%d refusals of strangers are not in the audit log"
                _log.warning(told, turn.left_out)
            if not turn.write:
                return
        self.record(peer, verdict)

    def is_news(self, peer: Peer, reason: Reason) -> bool:
        """Whether this was not told yet; a full set forgets, and tells again."""
        if len(self._told) > _TOLD:
            self._told.clear()
        news = (peer.key_id, reason) not in self._told
        self._told.add((peer.key_id, reason))
        return news

    def alarm_of(self, peer: Peer, text: str) -> None:
        """Tell the user loudly; what strangers bring about, at a bounded rate."""
        known = self._knows(peer.key_id)
        if known or self._alarms.turn(now=time.monotonic()).write:
            self._alarm(text)

    def code(self, peer: Peer) -> None:
        """Show our half of a code although nobody is asked here: there they are."""
        if self._codes.get(peer.key_id) != peer.code:
            self.code_is_shown(peer)
            _log.info('%s: both sides show "%s"', peer.name, peer.code)

    def code_is_shown(self, peer: Peer) -> None:
        """Note that the code of a meeting has been shown here."""
        if len(self._codes) >= limits.PENDING_REQUESTS:
            del self._codes[next(iter(self._codes))]
        self._codes[peer.key_id] = peer.code
