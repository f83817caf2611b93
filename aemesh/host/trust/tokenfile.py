"""How a join token is kept on disk: the record and its secret, in one private file.

A file that others could have read or put there, or with a word that we do not know, is
passed over with a line in the log: the word may be a restriction.
"""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import msgspec

from aemesh import limits
from aemesh.errors import BadMessage, TrustFileError
from aemesh.host.wholefile import write_whole
from aemesh.model.jointoken import SECRET_BYTES, is_token_id
from aemesh.model.key import KeyId
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import Role, Terms
from aemesh.policy.tokens import TokenRecord, TokenUse

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class KeptToken:
    """A token of ours with its secret; it never leaves the machine."""

    record: TokenRecord
    secret: bytes = field(repr=False)


class _UseFile(msgspec.Struct, forbid_unknown_fields=True):
    key: str
    name: str
    at: float


# A word that we do not know may be a restriction: such a record is not used.
class _TermsFile(msgspec.Struct, forbid_unknown_fields=True):
    groups: tuple[str, ...]
    sources: tuple[str, ...]
    users: tuple[str, ...]
    expires_at: float | None


class _TokenFile(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    count: int
    issued_at: float
    expires_at: float
    terms: _TermsFile
    names: tuple[str, ...]
    used_by: tuple[_UseFile, ...]
    revoked: bool
    secret: str  # hex

    def __repr__(self) -> str:
        return "<_TokenFile>"  # its fields have the secret


def token_path(place: Path, id_: str) -> Path:
    """Return the file of a token, whose id has been checked."""
    assert is_token_id(id_)
    return place / f"{id_}.json"


def token_files(place: Path) -> list[Path]:
    """Return the files that may be records."""
    return [path for path in place.glob("*.json") if is_token_id(path.stem)]


def all_kept(place: Path) -> list[KeptToken]:
    """Return what can be used of a folder, the oldest first."""
    found = (read_kept(place, path.stem) for path in token_files(place))
    kept = (one for one in found if one is not None)
    return sorted(kept, key=lambda one: (one.record.issued_at, one.record.id))


def read_kept(place: Path, id_: str) -> KeptToken | None:
    """Return what is kept of a token; None if nothing, or nothing that can be used."""
    path = token_path(place, id_)
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


def write_kept(place: Path, kept: KeptToken) -> None:
    """Put a record in place, whole; raises `TrustFileError` if it cannot be."""
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
            terms=_TermsFile(**asdict(record.terms)),
            names=record.names,
            used_by=tuple(uses),
            revoked=record.revoked,
            secret=kept.secret.hex(),
        )
    )
    path = token_path(place, record.id)
    try:
        write_whole(path, data)
    except OSError as error:
        what = f"{path} cannot be written"
        raise TrustFileError(what, why=error.strerror) from error


def _parse_untrusted(id_: str, data: bytes) -> KeptToken:
    msg = "no record of a join token"
    try:
        file = msgspec.json.decode(data, type=_TokenFile)
        secret, role = bytes.fromhex(file.secret), Role(file.role)
    # msgspec's errors are ValueErrors.  No `from`: a text could quote the file.
    except (ValueError, RecursionError):
        raise BadMessage(msg) from None
    if len(data) > limits.TOKEN_FILE_BYTES or len(secret) != SECRET_BYTES:
        raise BadMessage(msg)
    record = TokenRecord(
        id=id_,
        role=role,
        count=file.count,
        issued_at=file.issued_at,
        expires_at=file.expires_at,
        terms=Terms(**msgspec.structs.asdict(file.terms)),
        names=file.names,
        used_by=tuple(_use_untrusted(use) for use in file.used_by),
        revoked=file.revoked,
    )
    return KeptToken(record, secret)


def _use_untrusted(use: _UseFile) -> TokenUse:
    return TokenUse(
        KeyId.parse_untrusted(use.key), node_name_untrusted(use.name), use.at
    )
