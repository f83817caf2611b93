"""Requests of unknown peers that wait for a person: one small file each.

They are written by the agent on a stranger's word and read by commands, so they
are few, small, and read with suspicion: what is not a request is passed over.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

from aemesh import limits
from aemesh.errors import BadMessage, TrustFileError
from aemesh.host.folders import make_private
from aemesh.host.wholefile import locked, write_whole
from aemesh.model.key import PublicKey
from aemesh.model.names import node_name_untrusted
from aemesh.model.trust import Reason, Role, TrustRequest

if TYPE_CHECKING:
    from pathlib import Path

_FOLDER = "pending"
_ID = re.compile(r"[a-z2-7]{8}", re.ASCII)
_CODE = re.compile(r"(?:[a-z]{1,16}(?:-[a-z]{1,16}){3})?", re.ASCII)
_TRIES = range(1, 1_000_000)
_ADDRESS = re.compile(r"[0-9A-Za-z:.%\[\]_-]{0,80}", re.ASCII)


class _RequestFile(msgspec.Struct, forbid_unknown_fields=True):
    role: str
    name: str
    algorithm: str
    key: str
    address: str
    reason: str
    asked_at: float
    code: str = ""  # files of an older aemesh have neither
    tries: int = 1


def write_request(folder: Path, request: TrustRequest) -> None:
    """Keep a request, in place of an earlier one of the same key.

    Beyond `limits.PENDING_REQUESTS` the oldest are dropped.
    """
    algorithm, key = request.key.openssh.split()
    data = msgspec.json.encode(
        _RequestFile(
            role=request.role.value,
            name=request.name,
            algorithm=algorithm,
            key=key,
            address=request.address,
            reason=request.reason.value,
            asked_at=request.asked_at,
            code=request.code,
            tries=request.tries,
        )
    )
    place = folder / _FOLDER
    make_private(place, error=TrustFileError)
    with locked(place / ".lock"):
        write_whole(_path(place, request.id), data)
        stale = sorted(_files(place), key=_age)[: -limits.PENDING_REQUESTS]
        for path in stale:
            path.unlink(missing_ok=True)


def list_requests(folder: Path) -> tuple[TrustRequest, ...]:
    """Return the requests that wait, the oldest first."""
    found = (_read(path) for path in _files(folder / _FOLDER))
    requests = [request for request in found if request is not None]
    return tuple(sorted(requests, key=lambda request: (request.asked_at, request.id)))


def read_request(folder: Path, request_id: str) -> TrustRequest | None:
    """Return the request of this id, or None if there is none."""
    if not _ID.fullmatch(request_id):
        return None
    return _read(_path(folder / _FOLDER, request_id))


def remove_request(folder: Path, request_id: str) -> bool:
    """Drop a request; return whether it was there."""
    if not _ID.fullmatch(request_id):
        return False
    try:
        _path(folder / _FOLDER, request_id).unlink()
    except FileNotFoundError:
        return False
    return True


def _path(place: Path, request_id: str) -> Path:
    return place / f"{request_id}.json"


def _files(place: Path) -> list[Path]:
    return [path for path in place.glob("*.json") if _ID.fullmatch(path.stem)]


def _age(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read(path: Path) -> TrustRequest | None:
    try:
        with path.open("rb") as file:
            data = file.read(limits.PENDING_REQUEST_BYTES + 1)
        request = _parse_untrusted(data)
    except (OSError, BadMessage):
        return None
    return request if request.id == path.stem else None


def _parse_untrusted(data: bytes) -> TrustRequest:
    if len(data) > limits.PENDING_REQUEST_BYTES:
        msg = "a request is shorter"
        raise BadMessage(msg)
    try:
        wire = msgspec.json.decode(data, type=_RequestFile)
        role, reason = Role(wire.role), Reason(wire.reason)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors
        msg = "not a request"
        raise BadMessage(msg) from None
    sane = math.isfinite(wire.asked_at) and wire.tries in _TRIES
    if not (sane and _ADDRESS.fullmatch(wire.address) and _CODE.fullmatch(wire.code)):
        msg = "not a request"
        raise BadMessage(msg)
    return TrustRequest(
        role=role,
        name=node_name_untrusted(wire.name),
        key=PublicKey.parse_untrusted(wire.algorithm, wire.key),
        address=wire.address,
        reason=reason,
        asked_at=wire.asked_at,
        code=wire.code,
        tries=wire.tries,
    )
