"""What a worker says of itself, taken into its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aemesh.model.group import Holder
from aemesh.model.key import KeyId
from aemesh.model.machine import Facts
from aemesh.model.names import group_name_untrusted, node_name_untrusted

if TYPE_CHECKING:
    from aemesh.master.record import WorkerRecord
    from aemesh.protocol import wire


def take_facts_untrusted(record: WorkerRecord, body: wire.WorkerFacts) -> None:
    """Take in what a worker says of itself, first and whenever its lease changes."""
    holder = None if body.lease is None else _holder_untrusted(body.lease)
    record.facts = Facts(body.cores, body.memory, body.python, body.system)
    record.groups = frozenset(map(group_name_untrusted, body.groups))
    record.membership.know_generation(body.generation)
    if holder != record.holder:
        record.holder = holder
        record.wake()


def _holder_untrusted(lease: wire.HeldBy) -> Holder:
    return Holder(
        KeyId.parse_untrusted(lease.master),
        node_name_untrusted(lease.name),
        group_name_untrusted(lease.group) if lease.group else None,
        lease.generation,
    )
