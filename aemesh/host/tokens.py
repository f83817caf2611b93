"""Join tokens that this node gave out: one small private file each.

::

    <state>/master/tokens/      0700
        .lock                   held while a record is read and written again
        a2b3c4d5.json           0600: what the token allows, who used it, its secret

Command line and agent change them at the same time, and two workers may come with the
same token at once.  So each change takes the lock, reads the record again, judges what
it finds there, and puts a whole new file in place: of two who spend the last use,
exactly one gets it (threat 52).  An id is checked before it becomes part of a path.
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import msgspec

from aemesh import limits
from aemesh.errors import (
    BadMessage,
    RefusedError,
    SettingsError,
    TrustFileError,
    quoted,
)
from aemesh.host.folders import check_folder, make_private
from aemesh.host.wholefile import locked, sync_folder, write_whole
from aemesh.model.jointoken import (
    ID_BYTES,
    SECRET_BYTES,
    JoinToken,
    is_token_id,
    token_id,
)
from aemesh.model.key import KeyId
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import Reason, Role, Terms
from aemesh.policy.tokens import TokenRecord, TokenUse, ended, judge_token

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_FOLDER = "tokens"
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_OTHERS = stat.S_IRWXG | stat.S_IRWXO

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
    terms: Terms = Terms()
    names: tuple[str, ...] = ()
    role: Role = Role.WORKER


@dataclass(frozen=True, slots=True)
class _Kept:
    record: TokenRecord
    secret: bytes = field(repr=False)


class _UseFile(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    name: str
    at: float


class _TokenFile(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    count: int
    issued_at: float
    expires_at: float
    terms: Terms
    names: tuple[str, ...]
    used_by: tuple[_UseFile, ...]
    revoked: bool
    secret: str  # hex

    def __repr__(self) -> str:
        return "<_TokenFile>"  # its fields have the secret


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
        _write(place, _Kept(record, token.secret))
    return token


def list_tokens(folder: Path) -> tuple[TokenRecord, ...]:
    """Return the records of all tokens that are kept, the oldest first; no secrets."""
    place = folder / _FOLDER
    return tuple(kept.record for kept in _all(place)) if _is_safe(place) else ()


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
        kept = _read(place, id_)
        if kept is None:
            return False
        _write(place, replace(kept, record=replace(kept.record, revoked=True)))
    return True


def spend(folder: Path, id_: str, use: TokenUse, *, role: Role) -> TokenRecord:
    """Let `use.key_id` in by a token, and count it; return the record as it is then.

    Only for who has proved that it knows the secret.  A key that used the token before
    is not counted again.  Raises `TokenRefusedError` with the reason.
    """
    place = folder / _FOLDER
    if not is_token_id(id_) or not _is_safe(place):
        raise TokenRefusedError(id_, use, Reason.TOKEN_UNKNOWN)
    with locked(place / ".lock"):
        kept = _read(place, id_)
        record = kept.record if kept else None
        reason = judge_token(
            record, role=role, key_id=use.key_id, name=use.name, now=use.at
        )
        if kept is None or record is None or reason is not None:
            raise TokenRefusedError(id_, use, reason or Reason.TOKEN_UNKNOWN)
        if not record.is_used_by(use.key_id):
            record = replace(record, used_by=(*record.used_by, use))
            _write(place, replace(kept, record=record))
    return record


# --- what is kept -------------------------------------------------------------


def _make_room(place: Path, now: float) -> set[str]:
    """Remove what ended long ago, or longest ago; return the ids that are left."""
    records = [kept.record for kept in _all(place)]
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
        _path(place, record.id).unlink(missing_ok=True)
    sync_folder(place)
    return {path.stem for path in _files(place)}


def _fresh_id(taken: set[str]) -> str:
    while True:
        id_ = token_id(secrets.token_bytes(ID_BYTES))
        if id_ not in taken:
            return id_


def _path(place: Path, id_: str) -> Path:
    assert is_token_id(id_)
    return place / f"{id_}.json"


def _files(place: Path) -> list[Path]:
    return [path for path in place.glob("*.json") if is_token_id(path.stem)]


def _all(place: Path) -> list[_Kept]:
    found = (_read(place, path.stem) for path in _files(place))
    kept = (one for one in found if one is not None)
    return sorted(kept, key=lambda one: (one.record.issued_at, one.record.id))


def _is_safe(place: Path) -> bool:
    """Whether there is a folder of tokens; raises `TrustFileError` if others may
    exchange what is in it."""
    if not place.exists():
        return False
    check_folder(place, error=TrustFileError)
    return True


def _kept_untrusted(folder: Path, id_: str) -> _Kept | None:
    place = folder / _FOLDER
    if not is_token_id(id_):
        return None
    try:
        return _read(place, id_) if _is_safe(place) else None
    except TrustFileError as error:  # not the stranger's business
        logger.warning("join tokens are not used: %s", error)
        return None


def _read(place: Path, id_: str) -> _Kept | None:
    """Return what is kept of a token; None if nothing, or nothing that can be used."""
    path = _path(place, id_)
    try:
        fd = os.open(path, _FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read: %s", path, error.strerror)
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        ours = status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode)
        if not ours or status.st_mode & _OTHERS:
            logger.warning("%s is not used: expected a file of ours, 0600", path)
            return None
        data = file.read(limits.TOKEN_FILE_BYTES + 1)
    try:
        return _parse_untrusted(id_, data)
    except BadMessage:
        logger.warning("%s is not used: it is no record of a join token", path)
        return None


def _write(place: Path, kept: _Kept) -> None:
    record = kept.record
    uses = (
        _UseFile(key=str(use.key_id), name=use.name, at=use.at)
        for use in record.used_by
    )
    data = msgspec.json.encode(
        _TokenFile(
            role=record.role.value,
            count=record.count,
            issued_at=record.issued_at,
            expires_at=record.expires_at,
            terms=record.terms,
            names=record.names,
            used_by=tuple(uses),
            revoked=record.revoked,
            secret=kept.secret.hex(),
        )
    )
    write_whole(_path(place, record.id), data)


def _parse_untrusted(id_: str, data: bytes) -> _Kept:
    try:
        if len(data) > limits.TOKEN_FILE_BYTES:
            raise ValueError
        file = msgspec.json.decode(data, type=_TokenFile)
        secret, role = bytes.fromhex(file.secret), Role(file.role)
        if len(secret) != SECRET_BYTES:
            raise ValueError
    # msgspec's errors are ValueErrors.  No `from`: a text could quote the file.
    except (ValueError, RecursionError):
        msg = "no record of a join token"
        raise BadMessage(msg) from None
    record = TokenRecord(
        id=id_,
        role=role,
        count=file.count,
        issued_at=file.issued_at,
        expires_at=file.expires_at,
        terms=file.terms,
        names=file.names,
        used_by=tuple(_use_untrusted(use) for use in file.used_by),
        revoked=file.revoked,
    )
    return _Kept(record, secret)


def _use_untrusted(use: _UseFile) -> TokenUse:
    return TokenUse(
        KeyId.parse_untrusted(use.key), node_name_untrusted(use.name), use.at
    )
