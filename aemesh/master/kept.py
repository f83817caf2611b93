"""What a master leaves for its successor: one record for each group and member.

It lies in the memory of the keeper, beside the heads that go on without a master.  A
record is written before what it tells is done, so that nothing runs unknown; a
successor takes of it what still runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from aemesh import limits
from aemesh.model.key import KeyId
from aemesh.model.names import (
    GroupName,
    JobId,
    NodeName,
    group_name_untrusted,
    job_id_untrusted,
    node_name_untrusted,
)
from aemesh.protocol.strictjson import decode_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterable

_Port = Annotated[int, Meta(ge=limits.LOWEST_PORT, le=65535)]
_Jobs = Annotated[tuple[str, ...], Meta(max_length=limits.JOBS_PER_WORKER)]


class GroupRecord(msgspec.Struct, frozen=True):
    """A group: its engine and authority (PEM), where its head listens, and its jobs."""

    engine: str
    authority: str
    address: str = ""
    heads: _Jobs = ()


class MemberRecord(msgspec.Struct, frozen=True):
    """A member: who it is in the group, and the jobs that may run there."""

    name: str
    label: str
    generation: Annotated[int, Meta(ge=0, le=2**53)]
    jobs: _Jobs = ()
    # Its ports that are forwarded: there, and on the master; and at which address.
    ports: Annotated[
        tuple[tuple[_Port, _Port], ...], Meta(max_length=limits.FORWARDED_PORTS)
    ] = ()
    at: Annotated[str, Meta(max_length=64)] = ""


@dataclass(frozen=True, slots=True)
class Heir:
    """A member that is expected to come back."""

    name: NodeName
    label: str
    generation: int
    jobs: tuple[JobId, ...]
    ports: tuple[tuple[int, int], ...] = ()
    at: str = ""


@dataclass(slots=True)
class Estate:
    """What was left of one group."""

    engine: str
    authority: str
    address: str
    heads: tuple[JobId, ...]
    is_here: bool = True  # whether the keeper is beside us
    members: dict[KeyId, Heir] = field(default_factory=dict)


def group_key(group: GroupName) -> str:
    """Return the key of a group's record."""
    return group


def member_key(group: GroupName, member: KeyId) -> str:
    """Return the key of a member's record: it follows the one of its group."""
    return f"{group}/{member}"


def read_estates_untrusted(
    entries: Iterable[tuple[str, str]],
) -> dict[GroupName, Estate]:
    """Return what was left, group by group; raises `BadMessage`."""
    estates: dict[GroupName, Estate] = {}
    for key, text in entries:
        name, _, member = key.partition("/")
        group = group_name_untrusted(name)
        if not member:
            record = decode_untrusted(text.encode(), GroupRecord)
            heads = tuple(map(job_id_untrusted, record.heads))
            estates[group] = Estate(
                record.engine, record.authority, record.address[:64], heads
            )
        elif group in estates:
            key_id = KeyId.parse_untrusted(member)
            estates[group].members[key_id] = _member_untrusted(text)
    return estates


def encode(record: GroupRecord | MemberRecord) -> str:
    """Return a record as it is kept."""
    return msgspec.json.encode(record).decode()


def _member_untrusted(text: str) -> Heir:
    record = decode_untrusted(text.encode(), MemberRecord)
    return Heir(
        node_name_untrusted(record.name),
        record.label[:64],
        record.generation,
        tuple(map(job_id_untrusted, record.jobs)),
        record.ports,
        record.at,
    )
