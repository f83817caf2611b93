"""Where the heads of a master's groups run: with its keeper, or in the master itself.

Without a keeper (laptop mode, or one that was killed) a head is the master's own
child, and ends with it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from aemesh.errors import AemeshError
from aemesh.master.remote import DialStream, RemoteHost
from aemesh.model.names import NodeName

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aemesh.master.authority import GroupAuthority
    from aemesh.master.keeper import Keeper
    from aemesh.model.job import JobSpec
    from aemesh.model.names import JobId
    from aemesh.net.link import Link
    from aemesh.plugin import Job

_log = logging.getLogger(__name__)


class LocalJobs(Protocol):
    """Runs jobs beside the master; `aemesh.host.jobs` or a fake."""

    async def start(
        self, job_id: JobId, spec: JobSpec, *, tls: Mapping[str, bytes] = ...
    ) -> Job:
        """Start a job, or hand out a spare that waits for just this."""


class Heads:
    """Starts heads, and adopts those that a former master left."""

    def __init__(
        self,
        local: LocalJobs,
        *,
        wall: Callable[[], float],
        keeper: Keeper | None = None,
    ) -> None:
        self.keeper = keeper
        self._local = local
        self._wall = wall

    def __repr__(self) -> str:
        return f"<Heads {'kept' if self._kept() else 'of the master itself'}>"

    async def start(
        self, job_id: JobId, spec: JobSpec, *, authority: GroupAuthority, name: str
    ) -> Job:
        """Start a head; `name` is in its certificate.  Raises `EngineError`."""
        keeper = self._kept()
        if keeper is not None:
            member = self._member(keeper, authority, name)
            return await member.start_as(job_id, spec)
        tls: dict[str, bytes] = {}
        if spec.tls:
            key, certificate = authority.issue(name=name)
            tls = {
                "ca.pem": authority.certificate_pem.encode(),
                "cert.pem": certificate.encode(),
                "key.pem": key,
            }
        return await self._local.start(job_id, spec, tls=tls)

    async def adopt(
        self,
        job_id: JobId,
        *,
        authority: GroupAuthority,
        name: str,
        broke: Callable[[], None] | None = None,
    ) -> Job | None:
        """Return a head that goes on, or None if it does not any more.

        `broke` is called when its stream ends, and it may go on.
        """
        keeper = self._kept()
        if keeper is None:
            return None
        member = self._member(keeper, authority, name)
        try:
            return await replace(member, broke=broke or member.broke).attach(job_id)
        except AemeshError as exc:
            _log.info("%s is not there any more: %s", name, exc)
            return None

    def let_go(self) -> None:
        """Part with the keeper, without a good-bye: to find it again where it is."""
        keeper = self._kept()
        if keeper is not None:
            keeper.let_go()

    async def keep(self, key: str, data: str = "") -> None:
        """Leave something to a successor; without a keeper there is none."""
        keeper = self._kept()
        if keeper is None:
            return
        try:
            await keeper.keep(key, data)
        except AemeshError as exc:
            _log.warning("a successor will not know of %s: %s", key, exc)

    def _kept(self) -> Keeper | None:
        keeper = self.keeper
        return keeper if keeper and keeper.link.closed is None else None

    def _member(
        self, keeper: Keeper, authority: GroupAuthority, name: str
    ) -> RemoteHost:
        """Return the keeper as a member of the group, for its head."""
        link: Link = keeper.link
        dial: DialStream = keeper.dial_stream
        return RemoteHost(
            name=NodeName("keeper"),
            label=name,
            address=link.connection.remote.host,
            cores=0,
            memory=0,
            generation=keeper.generation,
            link=link,
            dial_stream=dial,
            certificate=authority.sign_untrusted(keeper.csr, name=name),
            authority=authority.certificate_pem,
            wall=self._wall,
        )
