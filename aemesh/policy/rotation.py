"""Whether a peer may put a next key in the place of its present one.

Only what was learnt from the peer itself may be changed by it: at a first meeting, on
a command, by a token.  A line that an administrator wrote, or that a certificate or
a ticket stands behind, is changed where it came from (threat 30).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.model.trust import Mode

if TYPE_CHECKING:
    from aemesh.model.key import PublicKey
    from aemesh.model.trust import KnownPeer, Peer, TrustBook

# `via` of lines that nobody but their writer may change; "verified:hand" as well.
_WRITTEN = frozenset({"hand", "import"})


def is_written(line: KnownPeer) -> bool:
    """Whether a person wrote a line of trust, and no meeting did."""
    return line.via.rpartition(":")[2] in _WRITTEN


def refuses_next(peer: Peer, following: PublicKey, book: TrustBook) -> str | None:
    """Return why a next key is not taken from `peer`, or None if it is.

    `peer` is as this session has proved it, by its present key.
    """
    line = book.by_key(peer.key_id)
    if line is None or line.key != peer.key:
        return "its present key is in no line of trust"
    if peer.mode is not Mode.LEAP or line.mode not in (Mode.LEAP, Mode.TOKEN):
        return f"its line is of mode {line.mode.value}"
    # Beside an administrator's line: the next key would be under the other one alone.
    authorized = book.authorizes(peer.key_id)
    if authorized or is_written(line):
        by = "an administrator" if authorized else f"a person (via={line.via})"
        return f"its line was written by {by}"
    if book.is_revoked(following.key_id):
        return "the next key is revoked"
    other = book.by_key(following.key_id)
    if other is not None and other.name != line.name:
        return f"the next key is known as {other.name}"
    return None


def superseded(peer: Peer, book: TrustBook) -> tuple[KnownPeer, ...]:
    """Return the lines of a peer's earlier keys, now that it came with its next one.

    A next key is written behind the one before.
    """
    line = book.by_key(peer.key_id)
    if line is None:
        return ()
    of_name = book.lines_of(line.name)
    before = of_name[: of_name.index(line)]
    return tuple(one for one in before if not is_written(one))
