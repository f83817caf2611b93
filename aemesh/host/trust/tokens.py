"""Join tokens that this node gave out: one small private file each.

::

    <state>/master/tokens/      0700
        .lock                   held while a record is read and written again
        a2b3c4d5.json           0600: see `tokenfile`

Command line and agent change them at the same time, and two workers may come with the
same token at once.  So each change takes the lock, reads the record again, judges what
it finds there, and puts a whole new file in place: of two who spend the last use,
exactly one gets it (threat 52).  An id is checked before it becomes part of a path.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import RefusedError, SettingsError, TrustFileError, quoted
from aemesh.host.folders import check_folder, make_private
from aemesh.host.trust.tokenfile import (
    KeptToken,
    all_kept,
    read_kept,
    token_files,
    token_path,
    write_kept,
)
from aemesh.host.wholefile import locked, sync_folder
from aemesh.model.jointoken import (
    ID_BYTES,
    SECRET_BYTES,
    JoinToken,
    is_token_id,
    token_id,
)
from aemesh.model.trust import Reason, Role, Terms
from aemesh.policy.tokens import TokenRecord, TokenUse, ended, judge_token

if TYPE_CHECKING:
    from pathlib import Path

    from aemesh.model.key import KeyId

logger = logging.getLogger(__name__)

_FOLDER = "tokens"

_WHY = {
    Reason.TOKEN_UNKNOWN: "no such token was given out here",
    Reason.TOKEN_ROLE: "it is for the other role",
    Reason.TOKEN_EXPIRED: "it has expired",
    Reason.TOKEN_SPENT: "it was used as often as it may be",
    Reason.TOKEN_NAME: "it is for other names",
    Reason.REVOKED: "it was revoked",
}


class TokenRefusedError(RefusedError):
    """A join token does not let this key in; `reason` is the name of why."""

    def __init__(self, id_: str, use: TokenUse, reason: Reason) -> None:
        self.reason = reason
        what = f"join token {quoted(id_)} does not let {use.name} {use.key_id} in"
        super().__init__(what, why=_WHY[reason])


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenOffer:
    """What a new token is to allow."""

    valid_after: float  # seconds from now on
    count: int = 1
    terms: Terms = field(default_factory=Terms)
    names: tuple[str, ...] = ()
    role: Role = Role.WORKER


def issue(folder: Path, offer: TokenOffer, *, issuer: KeyId, now: float) -> JoinToken:
    """Make a token of `issuer`, keep its record, and return it; nobody else has it.

    Records that ended long ago are removed.  Raises `SettingsError` when there are
    `limits.TOKENS` that have not ended.
    """
    place = folder / _FOLDER
    make_private(place, error=TrustFileError)
    with locked(place / ".lock"):
        taken = _make_room(place, now)
        id_ = _fresh_id(taken)
        token = JoinToken.of(issuer, id_, secrets.token_bytes(SECRET_BYTES))
        record = TokenRecord(
            id=id_,
            role=offer.role,
            count=offer.count,
            issued_at=now,
            expires_at=now + offer.valid_after,
            terms=offer.terms,
            names=offer.names,
        )
        write_kept(place, KeptToken(record, token.secret))
    return token


def list_tokens(folder: Path) -> tuple[TokenRecord, ...]:
    """Return the records of all tokens that are kept, the oldest first; no secrets."""
    place = folder / _FOLDER
    return tuple(kept.record for kept in all_kept(place)) if _is_safe(place) else ()


def read_token_untrusted(folder: Path, id_: str) -> TokenRecord | None:
    """Return the record of the token that a stranger names, or None."""
    kept = _kept_untrusted(folder, id_)
    return kept.record if kept else None


def secret_untrusted(folder: Path, id_: str) -> bytes | None:
    """Return the secret of the token that a stranger names, or None.

    Whether it may still be used is another question: see `spend`.
    """
    kept = _kept_untrusted(folder, id_)
    return kept.secret if kept else None


def revoke_token(folder: Path, id_: str) -> bool:
    """Let a token introduce nobody any more; False if there is none of this id.

    Who joined by it stays known.
    """
    place = folder / _FOLDER
    if not is_token_id(id_) or not _is_safe(place):
        return False
    with locked(place / ".lock"):
        kept = read_kept(place, id_)
        if kept is None:
            return False
        write_kept(place, replace(kept, record=replace(kept.record, revoked=True)))
    return True


def spend(folder: Path, id_: str, use: TokenUse, *, role: Role) -> TokenRecord:
    """Let `use.key_id` in by a token, and count it; return the record as it is then.

    Only for who has proved that it knows the secret.  A key that used the token before
    is not counted again.  Raises `TokenRefusedError` with the reason,
    and `TrustFileError` if it cannot be written down: then nobody is let in.
    """
    place = folder / _FOLDER
    if not is_token_id(id_) or not _is_safe(place):
        raise TokenRefusedError(id_, use, Reason.TOKEN_UNKNOWN)
    with locked(place / ".lock"):
        kept = read_kept(place, id_)
        record = kept.record if kept else None
        reason = judge_token(
            record, role=role, key_id=use.key_id, name=use.name, now=use.at
        )
        if kept is None or record is None or reason is not None:
            raise TokenRefusedError(id_, use, reason or Reason.TOKEN_UNKNOWN)
        if not record.is_used_by(use.key_id):
            record = replace(record, used_by=(*record.used_by, use))
            write_kept(place, replace(kept, record=record))
    return record


# --- what is kept -------------------------------------------------------------


def _make_room(place: Path, now: float) -> set[str]:
    """Remove what ended long ago, or longest ago; return the ids that are left."""
    records = [kept.record for kept in all_kept(place)]
    kept_until = now - limits.TOKEN_KEPT_AFTER
    gone = [record for record in records if record.expires_at < kept_until]
    over = [record for record in records if record.expires_at >= kept_until]
    if len(over) >= limits.TOKENS:
        dead = [record for record in over if ended(record, now=now)]
        if not dead:
            what = f"{limits.TOKENS} join tokens can be used already, that is the most"
            raise SettingsError(what, hint="`aemesh trust token revoke ID` ends one")
        gone.append(min(dead, key=lambda record: record.expires_at))
    for record in gone:
        token_path(place, record.id).unlink(missing_ok=True)
    sync_folder(place)
    return {path.stem for path in token_files(place)}


def _fresh_id(taken: set[str]) -> str:
    while True:
        id_ = token_id(secrets.token_bytes(ID_BYTES))
        if id_ not in taken:
            return id_


def _is_safe(place: Path) -> bool:
    """Whether there is a folder of tokens; raises `TrustFileError` if others may
    exchange what is in it."""
    if not place.exists():
        return False
    check_folder(place, error=TrustFileError)
    return True


def _kept_untrusted(folder: Path, id_: str) -> KeptToken | None:
    place = folder / _FOLDER
    if not is_token_id(id_):
        return None
    try:
        return read_kept(place, id_) if _is_safe(place) else None
    except TrustFileError as error:  # not the stranger's business
        logger.warning("join tokens are not used: %s", error)
        return None
