"""Attacks on modes: nothing weaker is taken; a certificate is worth what it says."""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from aemesh.errors import AemeshError, RefusedError, UnreachableError
from aemesh.host.keys.keystore import Identity
from aemesh.host.trust import trustfiles
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Mode, Role
from aemesh.net.doorman import DeskDoorman
from aemesh.net.shake import Channel
from aemesh.policy.openness import is_public
from aemesh.policy.trust import TrustPolicy
from aemesh.protocol import wire
from aemesh.protocol.nodekey import statement
from aemesh.testing.nodes import Node, both
from tests.company import Company
from tests.site import Site, certified_node, node_of


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "site")


def leap_node(role: Role, name: str, folder, *known: KnownPeer) -> Node:
    folder.mkdir(mode=0o700)
    desk = TrustDesk(TrustPolicy(role=role), folder=folder, wall=time.time)
    for line in known:
        trustfiles.add(folder, role.other, line)
    node = Node.fresh(role, name=name, doorman=DeskDoorman(desk))
    node.clock.wall = time.time()
    return node


def line_of(node: Node, **changes) -> KnownPeer:
    line = KnownPeer(
        NodeName(node.identity.name), node.identity.public, "accept", "20261120"
    )
    return replace(line, **changes)


# --- what is let in ---------------------------------------------------------------


@pytest.mark.parametrize("over_node_key", [True, False])
async def test_two_of_one_site_meet_without_a_question(site, tmp_path, over_node_key):
    """Shows: T3."""
    master = certified_node(
        site, Role.MASTER, "desk", tmp_path / "m", node_key=over_node_key
    )
    worker = certified_node(
        site, Role.WORKER, "lab-1", tmp_path / "w", node_key=over_node_key
    )

    near, far = await both(
        master.node, worker.node, expected=worker.node.identity.key_id
    )

    assert isinstance(near, Channel), near
    assert isinstance(far, Channel), far
    assert near.peer.key == worker.node.identity.public, "the node key is who it is"
    assert far.peer.key == master.node.identity.public
    (line,) = worker.desk.book.known
    assert (line.via, line.mode) == ("x509", Mode.X509)


@pytest.mark.parametrize("key", ["rsa", "p384"])
async def test_a_company_s_certificates_serve_as_well(tmp_path, key):
    """Shows: T3: made by openssl, below a CA in between, with DNS names."""
    company = Company(tmp_path / "company")
    nodes = []
    for role in Role:
        host = f"pc1.{role.value}s.example.org"
        company.make("pc1", "leaf", by="issuing", san=f"DNS:{host}", key=key)
        place = tmp_path / role.value / "x509"
        place.mkdir(parents=True, mode=0o700)
        place.parent.chmod(0o700)
        (place / "id.crt").write_bytes(company.pem("pc1", "issuing"))
        (place / "id.key").write_bytes((company.folder / "pc1.key").read_bytes())
        (place / "id.key").chmod(0o600)
        for ca in ("workers-ca.pem", "masters-ca.pem"):
            (place / ca).write_bytes(company.pem("root"))
        (place / "site.toml").write_text(
            'worker-dns = "*.workers.example.org"\n'
            'master-dns = "*.masters.example.org"\n'
        )
        nodes.append(node_of(role, "pc1", place.parent, place))
    worker, master = nodes

    near, far = await both(master.node, worker.node)

    assert isinstance(near, Channel), near
    assert isinstance(far, Channel), far
    assert near.peer.name == far.peer.name == "pc1"


async def test_either_may_dial(site, tmp_path):
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")

    near, far = await both(worker.node, master.node)

    assert isinstance(near, Channel)
    assert isinstance(far, Channel)


async def test_a_machine_that_was_set_up_anew_comes_in_under_its_certified_name(
    site, tmp_path
):
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    first = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    await both(first.node, worker.node)
    again = certified_node(site, Role.MASTER, "desk", tmp_path / "m2")

    near, far = await both(again.node, worker.node)

    assert isinstance(near, Channel), near
    assert isinstance(far, Channel), far
    assert [line.key for line in worker.desk.book.known] == [again.node.identity.public]


# --- what is not ------------------------------------------------------------------


async def test_a_pinned_key_does_not_stand_in_for_a_certificate(site, tmp_path):
    """Threat: 35, 44: in either direction, and whoever dials."""
    for role in Role:
        strict = certified_node(site, role, "strict", tmp_path / f"s-{role.value}")
        plain = leap_node(role.other, "plain", tmp_path / f"p-{role.value}")
        trustfiles.add(strict.folder, role.other, line_of(plain))
        for ends in ((strict.node, plain), (plain, strict.node)):
            near, far = await both(*ends)

            assert isinstance(near, AemeshError)
            assert isinstance(far, AemeshError)
        assert plain.doorman.desk.book.known == ()


async def test_a_self_signed_certificate_is_refused_before_tls(site, tmp_path):
    """Threat: 35: it claims mode x509 and brings what it made itself."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    liar = Node.fresh(Role.MASTER, name="desk", mode=Mode.X509)
    liar.clock.wall = time.time()

    near, far = await both(liar, worker.node)

    assert isinstance(near, UnreachableError)
    assert 'seems to refuse us: "certificate"' in str(near)
    assert isinstance(far, RefusedError)
    assert worker.desk.book.known == ()


@pytest.mark.parametrize("dials", [True, False])
async def test_a_worker_with_a_self_signed_certificate_is_refused(
    site, tmp_path, dials
):
    """Threat: 35."""
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    liar = Node.fresh(Role.WORKER, name="lab-1", mode=Mode.X509)
    liar.clock.wall = time.time()

    ends = (master.node, liar) if dials else (liar, master.node)
    near, far = await both(*ends)

    assert isinstance(near, AemeshError)
    assert isinstance(far, AemeshError)
    assert master.desk.book.known == ()


async def test_a_workers_certificate_is_no_masters(site, tmp_path):
    """Threat: 36."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    thief = certified_node(site, Role.WORKER, "lab-2", tmp_path / "t")
    thief.node.role = Role.MASTER

    near, far = await both(thief.node, worker.node)

    assert isinstance(near, AemeshError)
    assert isinstance(far, RefusedError)


async def test_a_certificate_of_one_name_is_not_for_another(site, tmp_path):
    """Threat: 37."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    master.node.identity.name = "boss"

    near, far = await both(master.node, worker.node)

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert "the certificate is of desk, HELLO says boss" in str(far)


async def test_the_ca_of_another_site_counts_for_nothing(site, tmp_path):
    """Threat: 39: it has the same name, and another key."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    other = Site(tmp_path / "other")
    master = certified_node(other, Role.MASTER, "desk", tmp_path / "m")

    near, far = await both(master.node, worker.node)

    assert isinstance(near, AemeshError)
    assert isinstance(far, RefusedError)


async def test_a_revoked_certificate_ends_what_it_began(site, tmp_path):
    """Threat: 42: refused before TLS, and a peer that is linked is parted with."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    _, far = await both(master.node, worker.node)
    assert isinstance(far, Channel)

    site.authority.revoke(
        "desk", role=Role.MASTER, reason="key-compromise", days=90, now=time.time()
    )
    site.hand_out(worker.x509)
    verdict = worker.desk.judge(far.peer)
    again, there = await both(master.node, worker.node)

    assert verdict.reason.value == "revoked"
    assert 'seems to refuse us: "revoked"' in str(again)
    assert isinstance(there, RefusedError)


async def test_a_revoked_key_of_a_chain_is_refused_before_tls(site, tmp_path):
    """Threat: 43: its chain is valid; the line may name the leaf's key, or the CA's."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    line = openssh_line(master.node.certified.chain[0])
    (worker.folder / "known_masters").write_text(f"@revoked * {line} stolen\n")
    (worker.folder / "known_masters").chmod(0o600)

    near, far = await both(master.node, worker.node)

    assert 'seems to refuse us: "revoked"' in str(near)
    assert isinstance(far, RefusedError)


@pytest.mark.parametrize(
    ("names", "whose", "let_in"),
    [
        ("*", "masters", True),
        ("desk,other", "masters", True),
        ("*", "workers", False),
        ("boss", "masters", False),
    ],
)
async def test_a_pinned_ca_is_not_exchanged_by_its_file(
    site, tmp_path, names, whose, let_in
):
    """Threat: 39: the line names the key, whatever certificate the file has."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    pem = (worker.x509 / f"{whose}-ca.pem").read_text()
    line = openssh_line(ssl.PEM_cert_to_DER_cert(pem))
    book = worker.folder / "known_masters"
    book.write_text(f"@cert-authority {names} {line} the site's\n")
    book.chmod(0o600)

    near, far = await both(master.node, worker.node)

    assert isinstance(far, Channel if let_in else RefusedError)
    if not let_in:
        assert "no @cert-authority line has the CA" in str(far)
        assert 'seems to refuse us: "certificate"' in str(near)


async def test_a_clock_that_is_wrong_by_an_hour_is_refused_with_the_number(
    site, tmp_path
):
    """Threat: 49."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    master.node.clock.wall += 3600

    near, far = await both(master.node, worker.node)

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert "3600 s" in f"{near}{far}"


async def test_a_node_key_that_did_not_sign_is_refused(site, tmp_path, monkeypatch):
    """Threat: 5: somebody certified says that it is another machine's node."""
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    victim = Identity.ephemeral("victim")
    # It can only have the statement that the victim made of the victim's own TLS key.
    stolen = victim.sign(statement(victim.key_id))
    monkeypatch.setattr(Identity, "sign", lambda self, message: stolen)
    master.node.identity.public = victim.public

    near, far = await both(master.node, worker.node)

    assert isinstance(near, AemeshError)
    assert "did not sign" in str(far)


# --- downgrades -------------------------------------------------------------------


@pytest.mark.parametrize("seen", [Mode.X509, Mode.GSS])
@pytest.mark.parametrize("role", list(Role))
async def test_who_was_seen_in_a_stronger_mode_is_refused_in_leap(tmp_path, seen, role):
    """Shows: T11."""
    peer = Node.fresh(role.other, name="peer")
    peer.clock.wall = time.time()
    ours = leap_node(role, "ours", tmp_path / "o", line_of(peer, mode=seen))

    near, far = await both(peer, ours)

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert f"weaker, seen in mode {seen.value} before, now in leap" in str(far)


async def test_a_new_key_under_the_name_of_a_certified_peer_is_refused_in_leap(
    tmp_path,
):
    """Shows: T11."""
    peer = Node.fresh(Role.WORKER, name="peer")
    peer.clock.wall = time.time()
    other = PublicKey(bytes([7]) * 32)
    line = line_of(peer, key=other, mode=Mode.X509)
    ours = leap_node(Role.MASTER, "ours", tmp_path / "o", line)

    _, far = await both(peer, ours)

    assert isinstance(far, RefusedError)
    assert "weaker" in str(far)


async def test_a_known_peer_is_not_taken_in_open(tmp_path):
    """Shows: T11; Threat: 45."""
    peer = Node.fresh(Role.WORKER, name="peer", mode=Mode.OPEN)
    peer.clock.wall = time.time()
    ours = leap_node(Role.MASTER, "ours", tmp_path / "o", line_of(peer))

    _, mixed = await both(peer, ours)
    desk = ours.doorman.desk
    desk.policy = replace(desk.policy, mode=Mode.OPEN)
    ours.mode = Mode.OPEN
    _, both_open = await both(peer, ours)

    assert "we require leap, you open" in str(mixed)
    assert "seen in mode leap before, now in open" in str(both_open)


async def test_a_chain_outside_of_its_mode_is_a_breach(site, tmp_path, monkeypatch):
    """Threat: 44: HELLO says leap and brings a chain, or says x509 and brings none."""
    master = certified_node(site, Role.MASTER, "desk", tmp_path / "m")
    worker = certified_node(site, Role.WORKER, "lab-1", tmp_path / "w")
    honest = wire.encode

    def encode(body, **numbers):
        if isinstance(body, wire.Hello) and body.role == "master":
            data = json.loads(honest(body, **numbers))
            data["b"]["chain"] = []
            return json.dumps(data).encode()
        return honest(body, **numbers)

    monkeypatch.setattr(wire, "encode", encode)

    near, far = await both(master.node, worker.node)

    assert isinstance(near, AemeshError)
    assert "does not begin with that of TLS" in str(far)


def openssh_line(der: bytes) -> str:
    key = x509.load_der_x509_certificate(der).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


@pytest.mark.parametrize(
    "host", ["2002:808:808::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"]
)
def test_an_address_of_a_tunnel_through_the_internet_is_public(host: str):
    """Python counts 6to4 and Teredo as private.  Threat: 48."""
    assert is_public(host)
