"""What a worker is held for, and by whom: the worker's own side of a lease.

The worker holds the lease, so two masters cannot both have it.  Generations only
rise: whatever comes late, from a group that it left, is refused by its number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.model.group import Lease

if TYPE_CHECKING:
    from aemesh.model.key import KeyId
    from aemesh.model.names import GroupName


class Tenancy:
    """At most one lease, and the highest generation that was ever held."""

    def __init__(
        self,
        worker: KeyId,
        *,
        generation: int = 0,
        groups: frozenset[GroupName] = frozenset(),
    ) -> None:
        self.worker = worker
        self.groups = groups  # that the owner allows; empty: any
        self.generation = generation
        self.lease: Lease | None = None
        # Nothing runs under the lease any more; its master is about to replace it.
        self.vacant = False

    def __repr__(self) -> str:
        held = f"held for {self.lease.group}" if self.lease else "free"
        held += ", vacant" if self.vacant else ""
        return f"<Tenancy {held}, generation {self.generation}>"

    def assign(
        self,
        master: KeyId,
        group: GroupName,
        generation: int,
        *,
        heirs: frozenset[KeyId] = frozenset(),
        kept_after: float = 0.0,
    ) -> Lease:
        """Take a lease; raises `RefusedError` if another one stands or it is old.

        The same master may replace its own lease by a newer one: it has lost the
        old one from sight, and its jobs are ended by the caller.
        """
        if not allows(self.groups, group):
            what = "the worker's owner does not allow it"
            raise RefusedError(what, why=f"group {group}; only {_names(self.groups)}")
        held = self.lease
        if held is not None and held.master != master:
            why = f"it serves group {held.group} of the master {held.master}"
            msg = "the worker is held"
            raise RefusedError(msg, why=why)
        if generation <= self.generation:
            why = f"generation {generation} is over; the last one was {self.generation}"
            what = "the assignment came late"
            raise RefusedError(what, why=why)
        if generation > self.generation + limits.GENERATION_LEAP:
            what = "the assignment's generation is not the next one"
            why = f"{generation}; the last one was {self.generation}"
            raise RefusedError(what, why=why)
        self.generation = generation
        self.vacant = False
        self.lease = Lease(
            master,
            self.worker,
            group,
            generation,
            heirs=heirs,
            kept_after=min(kept_after, limits.LEASE_KEPT_CAP_AFTER),
        )
        return self.lease

    def adopt(  # noqa: PLR0913 - a lease, and its new terms
        self,
        master: KeyId,
        group: GroupName,
        generation: int,
        *,
        holder_is_here: bool,
        heirs: frozenset[KeyId] = frozenset(),
        kept_after: float | None = None,
    ) -> Lease:
        """Go on with the lease, for its master or for an heir of it.

        An heir takes it over only when the master that it came from is out of sight.
        With `kept_after` the terms are those of who adopts, without it they stay.
        Raises `RefusedError`.
        """
        lease = self.lease
        if lease is None or (lease.group, lease.generation) != (group, generation):
            what = "there is no such lease to adopt"
            raise RefusedError(what, why=f"{self!r}")
        if self.vacant:
            what = "the lease is not to be adopted"
            raise RefusedError(what, why="nothing runs under it any more")
        if lease.master != master and master not in lease.heirs:
            what = "the worker is held"
            raise RefusedError(what, why=f"{master} is no heir of {lease.master}")
        if lease.master != master and holder_is_here:
            what = "the worker is held"
            raise RefusedError(what, why=f"its master {lease.master} is there")
        self.lease = replace(lease, master=master)
        if kept_after is not None:
            kept_after = min(kept_after, limits.LEASE_KEPT_CAP_AFTER)
            self.lease = replace(self.lease, heirs=heirs, kept_after=kept_after)
        return self.lease

    def holds(self, master: KeyId, generation: int) -> Lease:
        """Return the lease that a command refers to; raises `RefusedError`."""
        lease = self.lease
        if lease is None or lease.master != master:
            msg = "the worker is not held by this master"
            raise RefusedError(msg)
        if lease.generation != generation:
            why = f"it is of generation {generation}, the worker in {lease.generation}"
            what = "the command came late"
            raise RefusedError(what, why=why)
        if self.vacant:
            what = "the command came late"
            raise RefusedError(what, why=f"generation {generation} has ended")
        return lease

    def ends(self, master: KeyId, generation: int) -> bool:
        """Whether this word of this master ends what is held now.

        A generation after that of a vacant lease is one that was to replace it, and
        was refused.
        """
        lease = self.lease
        if lease is None or lease.master != master:
            return False
        refused = self.vacant and generation > lease.generation
        return refused or generation == lease.generation

    def release(self, master: KeyId, generation: int) -> None:
        """Give the lease back; one that is not held any more is no error."""
        if self.ends(master, generation):
            self.lease, self.vacant = None, False

    def vacate(self, master: KeyId, generation: int) -> None:
        """End the generation, and keep the lease for its master to replace.

        It is no turn of others: it goes to another group of the same master.
        """
        if self.ends(master, generation):
            self.vacant = True

    def check(self) -> None:
        """Assert what always holds."""
        assert self.lease is None or self.lease.generation == self.generation
        assert self.lease is not None or not self.vacant


def allows(groups: frozenset[GroupName], group: GroupName) -> bool:
    """Whether an owner who names these groups allows `group`; none named allows any."""
    return not groups or group in groups


def _names(groups: frozenset[GroupName]) -> str:
    return ", ".join(sorted(groups))
