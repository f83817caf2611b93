"""Whom a node trusts, as its files say now: read on a change, written as it learns.

With no folder all of it is in memory, for laptop mode.  Files that cannot be read trust
nobody; the naive empty book would have no owner and nobody revoked, and let in more
than the files do.
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import trio

from aemesh.errors import AemeshError, RefusedError, TrustFileError
from aemesh.host.keys import nextkey
from aemesh.host.site import x509files
from aemesh.host.trust import trustfiles
from aemesh.model.trust import KnownPeer, Peer, Role, TrustBook
from aemesh.policy.rotation import superseded
from aemesh.policy.trust import ended_between

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aemesh.model.key import KeyId, PublicKey

_log = logging.getLogger(__name__)

# How old the view of the files may be; a few `stat` calls each time.
WATCH_EVERY = 0.5


class TrustMemory:
    """The book of one role; `on_read` is called whenever it was read anew."""

    def __init__(
        self,
        peers: Role,
        *,
        folder: Path | None,
        wall: Callable[[], float],
        alarm: Callable[[str], None],
        x509: Path | None = None,
    ) -> None:
        self.folder = folder
        self.peers = peers
        self.changed = trio.Event()
        self.on_read: Callable[[], None] = lambda: None
        self._x509 = x509  # where the CAs are, in mode x509
        self._wall = wall
        self._alarm = alarm
        also = x509files.watched_paths(x509, peers) if x509 else ()
        self._files = trustfiles.TrustFolder(folder, *also) if folder else None
        self._book = TrustBook()
        self._following = False  # whether we have a next key to offer
        self._unreadable = ""  # why, if the files cannot be read
        self._read()

    def __repr__(self) -> str:
        return f"<TrustMemory of {len(self._book.known)} {self.peers.value}s>"

    @property
    def book(self) -> TrustBook:
        """What is remembered now."""
        self.refresh()
        return self._book

    @property
    def is_unreadable(self) -> bool:
        """Whether the files cannot be read now."""
        return bool(self._unreadable)

    @property
    def today(self) -> str:
        """The day, as trust files have it."""
        return dt.datetime.fromtimestamp(self._wall(), dt.UTC).strftime("%Y%m%d")

    def knows(self, key_id: KeyId) -> bool:
        """Whether a line lets this very key in, as it was read last."""
        return self._book.by_key(key_id) is not None or self._book.authorizes(key_id)

    def put(self, book: TrustBook) -> None:
        """Take another book; only without a folder, whose files would say otherwise."""
        self._book = book
        self.tell_changed()

    def refresh(self) -> None:
        """Read the files if they have changed."""
        if self._files is not None and self._files.changed():
            self._read()

    def tell_changed(self) -> None:
        """Wake whoever waits for a change of trust."""
        self.changed.set()
        self.changed = trio.Event()

    async def watch(self) -> None:
        """Look at the files, and at what ends in time, until cancelled."""
        looked_at = self._wall()
        while True:
            self.refresh()
            await trio.sleep(WATCH_EVERY)
            now = self._wall()
            if ended_between(self._book, looked_at, now):
                self.tell_changed()  # nobody wrote anything: time has passed
            looked_at = now

    def keep(self, line: KnownPeer) -> None:
        """Remember a peer; raises `RefusedError` or `TrustFileError`."""
        if self.folder is None:
            self._book = replace(self._book, known=(*self._book.known, line))
            return
        try:
            trustfiles.add(self.folder, self.peers, line)
        except OSError as exc:
            what = f"{line.name} cannot be remembered in {self.folder}"
            raise TrustFileError(what, why=exc.strerror) from exc
        self.refresh()

    def keep_certified(self, line: KnownPeer) -> None:
        """Remember a certified peer; under its name it may have had another key.

        The CA vouches for the name, so a machine that was set up anew comes in; a
        line that anybody else wrote about that name stands.
        """
        old = self._book.by_name(line.name)
        if old is not None and old.key != line.key and old.via == line.via:
            line = replace(line, terms=old.terms)
            if self.folder is not None:
                trustfiles.forget(self.folder, self.peers, str(old.key.key_id))
            else:
                self._leave_out(old)
        self.keep(line)

    def keep_next(self, present: KnownPeer, following: PublicKey) -> None:
        """Remember the key that a peer will have, beside the present one.

        Raises `RefusedError` without a word of our files: the peer reads it.
        """
        if self.folder is None:
            line = replace(present, key=following, added=self.today, last="")
            self._book = replace(self._book, known=(*self._book.known, line))
            return
        try:
            trustfiles.add_next_key(
                self.folder, self.peers, present, following, day=self.today
            )
        except (AemeshError, OSError) as exc:
            _log.warning("the next key of %s is not taken: %s", present.name, exc)
            what = f"the next key of {present.name} is not taken"
            raise RefusedError(what, why="it cannot be written down here") from exc

    def drop_superseded(self, peer: Peer) -> None:
        """Forget the key before: its owner came with the next one."""
        for line in superseded(peer, self._book):
            _log.info("%s has the key %s now", line.name, peer.key_id)
            if self.folder is not None:
                trustfiles.drop_key(self.folder, self.peers, line)
            else:
                self._leave_out(line)

    def touch(self, peer: Peer) -> None:
        """Note that a known peer was here, once a day, and in which mode (T11)."""
        known = self._book.by_key(peer.key_id)
        if self.folder is None or known is None:
            return
        day = self.today
        stronger = peer.mode.rank > known.mode.rank
        if known.last == day and not stronger:
            return
        try:
            trustfiles.touch_last(
                self.folder, self.peers, peer.key, day, mode=peer.mode
            )
        except (OSError, AemeshError) as exc:
            _log.warning("%s is not noted as seen today: %s", peer.name, exc)

    def _leave_out(self, line: KnownPeer) -> None:
        known = tuple(one for one in self._book.known if one != line)
        self._book = replace(self._book, known=known)

    def _read(self) -> None:
        if self.folder is None:
            return
        before = self._book, self.is_unreadable
        try:
            self._book = self._read_book(self.folder)
        except (AemeshError, OSError) as exc:
            # Fail closed: nobody is known until the file is mended.
            self._book = TrustBook()
            self._tell_unreadable(exc)
        else:
            self._unreadable = ""
        following = nextkey.has_next(self.folder)
        self.on_read()
        # Not for a request that was only written down: who waits for a change asks
        # again, and would be written down again.
        if (self._book, self.is_unreadable) != before or following != self._following:
            self._following = following
            self.tell_changed()

    def _read_book(self, folder: Path) -> TrustBook:
        book = trustfiles.read_book(folder, self.peers)
        if self._x509 is None:
            return book
        return replace(book, anchors=x509files.read_anchors(self._x509, self.peers))

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
