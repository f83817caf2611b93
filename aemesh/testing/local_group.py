"""A group without a master or a network: its members' jobs all run on this machine.

Master and members are as real as an engine can tell: each has an address of its own
on loopback, and a certificate by its label.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio
from cryptography.hazmat.primitives.serialization import Encoding

from aemesh.host.jobs import JobRunner, open_jobs
from aemesh.host.localjob import LocalJob
from aemesh.model.address import Address
from aemesh.model.job import JobSpec
from aemesh.model.names import GroupName, JobId, NodeName
from aemesh.testing.pki import DAY, Authority, new_key, pem_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aemesh.plugin import Member

# Enough for what tests compute, in a test machine with little.
_CORES, _MEMORY = 1, 256 * 1024**2


@dataclass(eq=False)
class LocalGroup:
    """What an engine sees of its group; implements `aemesh.plugin.GroupContext`."""

    jobs: JobRunner
    certify: Callable[[str], Mapping[str, bytes]]
    name: GroupName
    address: str = "127.0.0.1"
    head_is_here: bool = True
    closing: bool = False
    preload: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    heads: list[LocalJob] = field(default_factory=list)
    head_specs: list[JobSpec] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)  # label: why
    _broke: trio.Event = field(default_factory=trio.Event)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    async def start_head(self, spec: JobSpec) -> LocalJob:
        """Start a job beside the master."""
        job = await self.start(spec, tls=self.certify("head") if spec.tls else {})
        self.heads.append(job)
        self.head_specs.append(spec)
        return job

    async def adopt_head(self) -> LocalJob | None:
        """Nothing was left here by a former master."""
        return None

    def report(self, text: str) -> None:
        """Keep one line."""
        self.reports.append(text)

    def member_broken(self, member: Member, why: str) -> None:
        """Note that the engine lost its node on a member."""
        self.broken[member.label] = why
        self._broke.set()

    async def wait_broken(self, member: Member) -> str:
        """Wait until the engine says that a member is broken; return why."""
        while member.label not in self.broken:
            self._broke = trio.Event()
            await self._broke.wait()
        return self.broken[member.label]

    async def start(self, spec: JobSpec, *, tls: Mapping[str, bytes]) -> LocalJob:
        """Start a job with these certificates."""
        return await self.jobs.start(JobId(f"job-{next(self._numbers)}"), spec, tls=tls)


@dataclass(eq=False)
class LocalMember:
    """A worker in one generation; implements `aemesh.plugin.Member`."""

    group: LocalGroup
    name: NodeName
    generation: int = 1
    address: str = "127.0.0.2"  # Linux has all of 127/8 on loopback
    cores: int = _CORES
    memory: int = _MEMORY
    jobs: list[LocalJob] = field(default_factory=list)
    specs: list[JobSpec] = field(default_factory=list)
    tls: Mapping[str, bytes] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.tls = self.group.certify(self.label)

    @property
    def label(self) -> str:
        """A name that no other member of this group ever had."""
        return f"{self.name}.{self.generation}"

    async def start(self, spec: JobSpec) -> LocalJob:
        """Start a job there."""
        job = await self.group.start(spec, tls=self.tls if spec.tls else {})
        self.jobs.append(job)
        self.specs.append(spec)
        return job

    async def reach(self, port: int) -> str:
        """Return where a port there is reached: all is on this machine."""
        return str(Address(self.address, port))

    async def adopt(self) -> LocalJob | None:
        """Nothing was left here by a former master."""
        return None

    def next_one(self) -> LocalMember:
        """Return the same worker in its next generation."""
        return LocalMember(self.group, self.name, self.generation + 1)


@asynccontextmanager
async def open_local_group(folder: Path, name: str = "A") -> AsyncIterator[LocalGroup]:
    """Return a group with an authority of its own; at the end no job of it is left."""
    now = time.time()
    life = {"begins_at": now - DAY, "ends_at": now + DAY}
    authority = Authority.root(f"aemesh group {name}", **life)

    def certify(label: str) -> Mapping[str, bytes]:
        key = new_key()
        certificate = authority.issue(label, key=key, **life)
        return {
            "ca.pem": authority.pem,
            "cert.pem": certificate.public_bytes(Encoding.PEM),
            "key.pem": pem_of(key),
        }

    async with open_jobs(folder, spares=2) as jobs:
        yield LocalGroup(jobs, certify, GroupName(name))
