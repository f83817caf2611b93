"""A site with its two CAs, and nodes that it certified, for tests."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from aemesh.host.keys.keystore import Identity
from aemesh.host.site.authority import Order, SiteAuthority
from aemesh.host.site.x509credentials import read_credentials
from aemesh.host.trust.auditlog import AuditLog
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.names import NodeName
from aemesh.model.trust import Mode, Role
from aemesh.net.doorman import DeskDoorman
from aemesh.policy.trust import TrustPolicy
from aemesh.testing.nodes import FixedClock, Node


class Site:
    """Two CAs in a folder."""

    def __init__(self, folder: Path, name: str = "lab") -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self.authority = SiteAuthority(folder / "ca")
        self.authority.make(site=name, days=365, now=time.time())
        self.folder = folder

    def certify(
        self, role: Role, name: str, state: Path, *, csr: str | None = None
    ) -> Path:
        """Issue a certificate and put all that a node needs into its x509 folder."""
        place = state / "x509"
        place.mkdir(parents=True, mode=0o700)
        request = None
        if csr is not None:
            request = self.folder / f"{name}.csr"
            request.write_text(csr)
        order = Order(role=role, name=NodeName(name), csr=request, out=place / "id.crt")
        self.authority.issue(order, now=time.time())
        self.hand_out(place)
        return place

    def hand_out(self, place: Path) -> None:
        """Copy the public part of the site, as it is now, to a node."""
        for file in self.authority.public.iterdir():
            shutil.copy(file, place / file.name)


@dataclass
class CertifiedNode:
    """A node in mode x509 with its desk, and what its user was told."""

    node: Node
    desk: TrustDesk
    folder: Path
    x509: Path
    alarms: list[str] = field(default_factory=list)


def certified_node(
    site: Site, role: Role, name: str, folder: Path, *, node_key: bool = False
) -> CertifiedNode:
    """Return a node of this site; its certificate is over its node key, or another."""
    folder.mkdir(mode=0o700)
    identity = Identity.ephemeral(name)
    csr = identity.request() if node_key else None
    place = site.certify(role, name, folder, csr=csr)
    return node_of(role, name, folder, place, identity=identity)


def node_of(
    role: Role,
    name: str,
    folder: Path,
    place: Path,
    *,
    identity: Identity | None = None,
) -> CertifiedNode:
    """Return a node in mode x509 with what is in its x509 folder, `place`."""
    identity = identity or Identity.ephemeral(name)
    alarms: list[str] = []
    desk = TrustDesk(
        TrustPolicy(role=role, mode=Mode.X509),
        folder=folder,
        wall=time.time,
        audit=AuditLog(folder),
        alarm=alarms.append,
        x509=place,
    )
    node = Node(
        role,
        identity,
        DeskDoorman(desk),
        mode=Mode.X509,
        clock=FixedClock(time.time()),
        certified=read_credentials(place, role, identity, now=time.time()),
    )
    return CertifiedNode(node, desk, folder, place, alarms)
