"""Under which address the processes of an engine reach a member."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aemesh.model.address import Address


def member_host(remote: Address, announced: Iterable[Address]) -> str:
    """Return the host of a member that others reach as well as we do.

    It is where the link goes to.  But a link may be up at a link-local address (RFC
    4291, 2.5.6), whichever side dialled first after a cable was mended; that one means
    something on one interface of one machine only.  Then one that the worker announced
    is taken, IPv4 first, if there is any.
    """
    if not _is_of_one_link(remote):
        return remote.host
    others = [one for one in announced if not _is_of_one_link(one)]
    best = min(others, key=lambda one: one.ip.version, default=remote)
    return best.host


def _is_of_one_link(address: Address) -> bool:
    return address.ip.version == 6 and address.ip.is_link_local
