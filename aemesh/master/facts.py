"""What a worker says of itself, taken into its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.model.group import Holder
from aemesh.model.key import KeyId
from aemesh.model.machine import Facts, Forward
from aemesh.model.names import (
    group_name_untrusted,
    label_untrusted,
    node_name_untrusted,
)

if TYPE_CHECKING:
    from aemesh.master.record import WorkerRecord
    from aemesh.protocol import wire


# A worker's own clock and ours run alike between two of its messages, and one of them
# may be late by so much: that is no other end.
_SAME_END = 1.0


def take_facts_untrusted(
    record: WorkerRecord, body: wire.WorkerFacts, *, now: float
) -> None:
    """Take in what a worker says of itself, first and whenever its lease changes."""
    if body.serial < record.serial:
        return  # a later one was handled before it
    record.serial = body.serial
    holder = None if body.lease is None else _holder_untrusted(body.lease)
    labels = tuple(map(label_untrusted, body.labels))
    record.facts = Facts(
        body.cores,
        body.memory,
        body.python,
        body.system,
        labels,
        _forward_untrusted(body.forward),
    )
    record.spares, record.spare_memory = body.spares, body.spare_memory
    record.groups = frozenset(map(group_name_untrusted, body.groups))
    record.membership.know_generation(body.generation)
    until = 0.0 if body.until_after is None else now + body.until_after
    if abs(until - record.until) > _SAME_END:
        record.until = until
        record.wake()
    record.wanted = {
        KeyId.parse_untrusted(one.master): one.workers for one in body.wanted
    }
    record.over = body.over
    if (holder, body.waits) != (record.holder, record.waits):
        record.holder, record.waits = holder, body.waits
        record.wake()


def _forward_untrusted(word: str) -> Forward:
    try:
        return Forward(word)
    except ValueError:
        return Forward.AUTO  # a word of a newer worker


def _holder_untrusted(lease: wire.HeldBy) -> Holder:
    return Holder(
        KeyId.parse_untrusted(lease.master),
        node_name_untrusted(lease.name),
        group_name_untrusted(lease.group) if lease.group else None,
        lease.generation,
    )
