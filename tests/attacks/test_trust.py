"""Attacks on trust: whose key is believed, and what is written down of it."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import logging
import ssl
from dataclasses import replace

import pytest
import trio
import trio.testing
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from aemesh import limits
from aemesh.errors import (
    AemeshError,
    BadMessage,
    KeyChangedError,
    RefusedError,
)
from aemesh.host.keys.keystore import Identity
from aemesh.host.trust import pending, trustfiles
from aemesh.host.trust.auditlog import AuditLog
from aemesh.host.trust.trustdesk import TrustDesk
from aemesh.master.authority import GroupAuthority
from aemesh.model.address import Address
from aemesh.model.key import PublicKey
from aemesh.model.machine import Announcement
from aemesh.model.names import GroupName, NodeName
from aemesh.model.trust import Decision, KnownPeer, Mode, Reason, Role
from aemesh.net.doorman import DeskDoorman
from aemesh.net.entrance import Door
from aemesh.net.link import open_link
from aemesh.policy.trust import TrustPolicy, judge
from aemesh.protocol import wire
from aemesh.testing.nodes import Node, both, connection_pair, shake_hands

KNOWN_FILE = {Role.WORKER: "known_masters", Role.MASTER: "known_workers"}


class Office:
    """One node with its trust on disk, and all that its user was told."""

    def __init__(self, folder, role: Role, name: str, **policy: object) -> None:
        folder.mkdir(mode=0o700)
        self.folder = folder
        self.role = role
        self.alarms: list[str] = []
        self.asked: list[str] = []
        mode = policy.setdefault("mode", Mode.LEAP)
        self.desk = TrustDesk(
            TrustPolicy(role=role, **policy),
            folder=folder,
            wall=lambda: 1_800_000_000.0,
            audit=AuditLog(folder),
            alarm=self.alarms.append,
        )
        self.node = Node.fresh(
            role, name=name, mode=mode, doorman=DeskDoorman(self.desk)
        )

    def know(self, node: Node, *, name: str | None = None) -> None:
        name = name or node.identity.name
        line = KnownPeer(NodeName(name), node.identity.public, "accept", "20261120")
        trustfiles.add(self.folder, self.role.other, line)

    @property
    def remembered(self) -> str:
        """What is written about whom it trusts."""
        file = self.folder / KNOWN_FILE[self.role]
        return file.read_text() if file.exists() else ""

    @property
    def audit(self) -> list[tuple[str, str]]:
        lines = (self.folder / "audit.log").read_text().splitlines()
        entries = map(json.loads, lines)
        return [(entry["verdict"], entry["reason"]) for entry in entries]

    async def ask(self, answer: bool | None, request) -> bool:
        self.asked.append(request.name)
        if answer is None:
            await trio.sleep_forever()
        return answer


@pytest.fixture
def worker(tmp_path) -> Office:
    return Office(tmp_path / "worker", Role.WORKER, "lab-1")


@pytest.fixture
def master(tmp_path) -> Office:
    return Office(tmp_path / "master", Role.MASTER, "desk")


# --- trust on first use -------------------------------------------------------------


async def test_another_master_with_the_name_of_the_known_one_is_refused(worker):
    """Threat: 21."""
    worker.know(Node.fresh(Role.MASTER, name="desk"))
    before = worker.remembered

    near, far = await both(Node.fresh(Role.MASTER, name="desk"), worker.node)

    assert isinstance(near, RefusedError)
    assert isinstance(far, KeyChangedError)
    assert "key-changed" in str(near)
    assert worker.remembered == before
    assert worker.audit == [("no", "key-changed")]
    assert "REMOTE IDENTIFICATION HAS CHANGED" in worker.alarms[0]
    assert pending.list_requests(worker.folder) == ()


async def test_the_name_of_the_known_master_does_not_help_on_the_command_line(
    tmp_path,
):
    """Threat: 21: not even when its key was given, by a careless paste."""
    impostor = Node.fresh(Role.MASTER, name="desk")
    worker = Office(
        tmp_path / "w",
        Role.WORKER,
        "lab-1",
        trusted_keys=frozenset({impostor.identity.key_id}),
    )
    worker.know(Node.fresh(Role.MASTER, name="desk"))

    _, far = await both(impostor, worker.node)

    assert isinstance(far, KeyChangedError)


@pytest.mark.parametrize("accept_first", [True, False])
async def test_another_master_at_an_owned_worker_is_refused(tmp_path, accept_first):
    """Threat: 22: it imprints once; the owner finds the request in the list."""
    worker = Office(tmp_path / "w", Role.WORKER, "lab-1", accept_first=accept_first)
    worker.know(Node.fresh(Role.MASTER, name="desk"))
    before = worker.remembered

    near, far = await both(Node.fresh(Role.MASTER, name="other"), worker.node)

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert "belongs to another master" in str(near)
    assert worker.remembered == before
    assert worker.audit == [("no", "owned")]
    assert [r.name for r in pending.list_requests(worker.folder)] == ["other"]


async def test_of_two_masters_that_come_at_once_one_imprints(tmp_path, autojump_clock):
    """Threat: 22."""
    worker = Office(tmp_path / "w", Role.WORKER, "lab-1", accept_first=True)
    masters = [Node.fresh(Role.MASTER, name=f"desk-{n}") for n in range(4)]
    came = []

    async def dial(node):
        came.append(await both(node, worker.node))

    async with trio.open_nursery() as nursery:
        for node in masters:
            nursery.start_soon(dial, node)

    won = [near for near, _ in came if not isinstance(near, Exception)]
    lost = [near for near, _ in came if isinstance(near, Exception)]
    assert len(won) == 1
    assert len(lost) == 3
    assert all(isinstance(error, RefusedError) for error in lost)
    assert len(worker.remembered.splitlines()) == 1


async def test_a_worker_whose_key_changed_is_refused_loudly_and_nobody_is_asked(
    tmp_path, autojump_clock
):
    """Threat: 23: there is no question that could be answered by habit."""
    master = Office(tmp_path / "m", Role.MASTER, "desk", accept_new=True)
    master.know(Node.fresh(Role.WORKER, name="lab-1"))
    before = master.remembered
    impostor = Office(tmp_path / "w", Role.WORKER, "lab-1", accept_first=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(master.desk.run, lambda r: master.ask(True, r))
        near, far = await both(master.node, impostor.node)
        await trio.sleep(10)
        nursery.cancel_scope.cancel()

    assert isinstance(near, KeyChangedError)
    assert isinstance(far, RefusedError)
    assert master.asked == []
    assert master.remembered == before
    assert "aemesh trust forget lab-1" in master.alarms[0]
    assert str(impostor.node.identity.key_id) in master.alarms[0]
    assert "refuses us" in impostor.alarms[0]  # its user hears of it, too
    assert impostor.remembered == ""


async def test_whoever_answers_for_the_worker_that_was_dialled_is_refused(
    master, worker
):
    """Threat: 24."""
    master.know(worker.node, name="liar")  # even one that is known

    near, _ = await both(
        master.node, worker.node, expected=Identity.ephemeral("lab-1").key_id
    )

    assert isinstance(near, RefusedError)
    assert "is not who was meant" in str(near)


@pytest.mark.parametrize("who", ["master", "worker"])
async def test_what_a_person_does_not_confirm_is_stored_on_neither_side(
    tmp_path, autojump_clock, who
):
    """Threat: 26."""
    master = Office(tmp_path / "m", Role.MASTER, "desk", accept_new=who != "master")
    worker = Office(tmp_path / "w", Role.WORKER, "lab-1", accept_first=who != "worker")
    asked = master if who == "master" else worker

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.desk.run, lambda r: asked.ask(False, r))
        near, far = await both(master.node, worker.node)
        nursery.cancel_scope.cancel()

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert len(asked.asked) == 1
    assert master.remembered == worker.remembered == ""
    assert pending.list_requests(asked.folder) == ()
    again, _ = await both(master.node, worker.node)
    assert "a person said no" in str(again)


@pytest.mark.parametrize("who", ["master", "worker"])
async def test_what_a_person_does_not_answer_is_stored_on_neither_side(
    tmp_path, autojump_clock, who, monkeypatch
):
    """Threat: 26."""
    monkeypatch.setattr(limits, "PENDING_AFTER", 60.0)
    master = Office(tmp_path / "m", Role.MASTER, "desk", accept_new=who != "master")
    worker = Office(tmp_path / "w", Role.WORKER, "lab-1", accept_first=who != "worker")
    asked = master if who == "master" else worker

    async with trio.open_nursery() as nursery:
        nursery.start_soon(asked.desk.run, lambda r: asked.ask(None, r))
        near, far = await both(master.node, worker.node)
        nursery.cancel_scope.cancel()

    assert isinstance(near, AemeshError)
    assert isinstance(far, AemeshError)
    assert master.remembered == worker.remembered == ""


@pytest.mark.parametrize(
    ("address", "decision"),
    [("10.1.2.3:7472", Decision.OK), ("192.0.2.7:7472", Decision.PENDING)],
)
async def test_a_first_master_from_outside_the_netblock_waits_for_a_person(
    tmp_path, address, decision
):
    """Threat: 34."""
    worker = Office(
        tmp_path / "w",
        Role.WORKER,
        "lab-1",
        accept_first=True,
        enrol_from=("10.0.0.0/8",),
    )
    peer, _ = await shake_peer(Node.fresh(Role.MASTER))

    verdict = worker.desk.judge(replace(peer, address=address))

    assert verdict.decision is decision
    assert bool(worker.desk.waiting) is (decision is Decision.PENDING)
    assert worker.remembered == ""


async def test_strangers_without_end_are_remembered_only_so_far(worker, monkeypatch):
    """Threat: 26: each is a request for a person, and most ask in vain."""
    monkeypatch.setattr(limits, "PENDING_REQUESTS", 10)
    peer, _ = await shake_peer(Node.fresh(Role.MASTER))
    for n in range(limits.PENDING_REQUESTS + 20):
        key = PublicKey(n.to_bytes(32, "big"))
        stranger = replace(peer, name=NodeName(f"evil-{n}"), key=key)
        assert worker.desk.judge(stranger).decision is Decision.PENDING

    assert len(worker.desk.waiting) == limits.PENDING_REQUESTS
    assert len(pending.list_requests(worker.folder)) == limits.PENDING_REQUESTS


async def shake_peer(node: Node):
    """Return how a node looks to whom it has shaken hands with."""
    _, far = await shake_hands(node, Node.fresh(node.role.other))
    return far.peer, far


# --- modes --------------------------------------------------------------------------


@pytest.mark.parametrize("dials", [Role.MASTER, Role.WORKER])
async def test_an_open_worker_and_a_leap_master_refuse_each_other(
    tmp_path, master, dials
):
    """Threat: 45."""
    worker = Office(tmp_path / "w", Role.WORKER, "lab-1", mode=Mode.OPEN)
    ends = (master.node, worker.node)

    near, far = await both(*(ends if dials is Role.MASTER else ends[::-1]))

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert "mode" in str(near)
    assert master.remembered == worker.remembered == ""


@pytest.mark.parametrize("announced", list(Mode))
async def test_what_mdns_says_of_the_mode_changes_no_verdict(master, announced):
    """Threat: 47: `judge` is not even told."""
    worker = Node.fresh(Role.WORKER, name="lab-1")
    heard = Announcement(
        role=Role.WORKER,
        name=NodeName("lab-1"),
        key=worker.identity.public,
        mode=announced,
        cores=4,
        memory=1 << 33,
        addresses=(Address("192.0.2.2", 7472),),
        signed_at=0,
        expires_at=1 << 32,
    )
    peer, _ = await shake_peer(worker)

    verdict = master.desk.judge(peer, expected=heard.key.key_id)

    assert verdict.reason is Reason.UNKNOWN
    assert verdict.decision is Decision.PENDING
    assert list(inspect.signature(judge).parameters) == [
        "peer",
        "book",
        "policy",
        "expected",
        "now",
    ]


async def test_a_worker_that_really_is_open_is_refused_whatever_it_announced(master):
    """Threat: 47."""
    peer, _ = await shake_peer(Node.fresh(Role.WORKER, mode=Mode.OPEN))

    assert master.desk.judge(peer).reason is Reason.MODE


async def test_a_clock_that_is_wrong_by_an_hour_is_a_warning_in_leap(
    worker, caplog, autojump_clock
):
    """Threat: 49."""
    master = Node.fresh(Role.MASTER)
    worker.know(master)
    master.clock.wall += 3600
    door = Door(worker.desk, chance=lambda: 0.5, linked=lambda _: None)
    dialled, accepted = connection_pair()
    entry = door.enter(accepted)
    channels = []

    async def accept():
        channels.append(await worker.node.shaker_for(entry).accept(accepted))

    with caplog.at_level(logging.INFO):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            channels.append(await master.shaker.connect(dialled, expected=None))

    assert len(channels) == 2
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert [r.getMessage() for r in warnings] == ["the clock of desk is off by 3600 s"]


async def test_a_pending_master_with_a_wrong_clock_is_told_once(
    worker, caplog, autojump_clock
):
    """Threat: 49."""
    master = Node.fresh(Role.MASTER)
    master.clock.wall -= 3600
    door = Door(worker.desk, chance=lambda: 0.5, linked=lambda _: None)
    dialled, accepted = connection_pair()
    entry = door.enter(accepted)
    with caplog.at_level(logging.INFO), trio.move_on_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.node.shaker_for(entry).accept, accepted)
            nursery.start_soon(lambda: master.shaker.connect(dialled, expected=None))

    told = [r for r in caplog.records if "off by -3600 s" in r.getMessage()]
    assert len(told) == 1


# --- roles --------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
async def test_a_worker_cannot_command_another_worker(tmp_path, known):
    """Threat: 80: not even one whose key is written among the masters."""
    worker = Office(tmp_path / "w", Role.WORKER, "lab-1", accept_first=True)
    other = Node.fresh(Role.WORKER, name="lab-2")
    if known:
        worker.know(other)
    before = worker.remembered

    near, far = await both(other, worker.node)

    assert isinstance(near, AemeshError)
    assert isinstance(far, BadMessage)
    assert "a worker talks to a master, the peer is a worker" in str(far)
    assert worker.remembered == before


async def test_a_worker_that_says_it_is_a_master_is_an_unknown_master(
    worker, autojump_clock
):
    """Threat: 80: a role is the peer's word; its key is what is trusted."""
    identity = Identity.ephemeral("lab-2")
    liar = Node(Role.MASTER, identity, Node.fresh(Role.MASTER).doorman)
    worker.know(Node.fresh(Role.MASTER, name="desk"))

    near, far = await both(liar, worker.node)

    assert isinstance(near, RefusedError)
    assert isinstance(far, RefusedError)
    assert worker.audit == [("no", "owned")]


async def test_a_worker_is_not_commanded_by_whom_it_dialled_as_a_worker(
    autojump_clock,
):
    """Threat: 80: over a link, a worker's commands are not what a master does."""
    near, far = await shake_hands(Node.fresh(Role.WORKER), Node.fresh(Role.MASTER))

    async def master_handles(_link, body):
        return wire.Unsupported(what=wire.NAMES[type(body)])

    async with (
        open_link(far, master_handles),
        open_link(near, master_handles) as link,
    ):
        with pytest.raises(AemeshError, match="does not know"):
            await link.request(wire.Assign(group="A", generation=1), wire.Assigned)


# --- certificate requests -----------------------------------------------------------

P256 = ec.generate_private_key(ec.SECP256R1())
P256_OID = b"\x2a\x86\x48\xce\x3d\x03\x01\x07"
SHA256 = hashes.SHA256()


@pytest.fixture(scope="module")
def authority() -> GroupAuthority:
    return GroupAuthority(GroupName("analysisA"), now=1_800_000_000.0)


def request(key=P256, *, subject="evil", extensions=(), digest=SHA256) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key, digest).public_bytes(Encoding.PEM).decode()


GREEDY = (
    x509.BasicConstraints(ca=True, path_length=None),
    x509.SubjectAlternativeName([x509.DNSName("*"), x509.DNSName("desk")]),
    x509.NameConstraints([x509.DNSName("evil")], None),
)


def test_of_a_greedy_request_only_the_key_is_taken(authority):
    """Threat: 78."""
    pem = authority.sign_untrusted(request(extensions=GREEDY), name="lab-1")

    leaf = x509.load_pem_x509_certificate(pem.encode())
    ca = x509.load_pem_x509_certificate(authority.certificate_pem.encode())
    leaf.verify_directly_issued_by(ca)
    assert leaf.public_key() == P256.public_key()
    assert leaf.subject.rfc4514_string() == "CN=lab-1"
    constraints = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.value == x509.BasicConstraints(ca=False, path_length=None)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    assert not usage.key_cert_sign
    for kind in (x509.SubjectAlternativeName, x509.NameConstraints):
        with pytest.raises(x509.ExtensionNotFound):
            leaf.extensions.get_extension_for_class(kind)
    now = dt.datetime.fromtimestamp(1_800_000_000, dt.UTC)
    assert leaf.not_valid_before_utc < now < leaf.not_valid_after_utc


def changed(pem: str, old: bytes, new: bytes) -> str:
    """Return a request with bytes changed, so that its signature is wrong."""
    der = x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)
    assert old in der
    lines = ssl_pem(der.replace(old, new))
    return lines.replace("CERTIFICATE", "CERTIFICATE REQUEST")


def ssl_pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)


@pytest.mark.parametrize(
    ("pem", "words"),
    [
        (
            request(rsa.generate_private_key(65537, 1024)),
            "expected a certificate request for a P-256 key",
        ),
        (
            request(rsa.generate_private_key(65537, 2048)),
            "expected a certificate request for a P-256 key",
        ),
        (request(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        (request(ed25519.Ed25519PrivateKey.generate(), digest=None), "P-256"),
        (changed(request(), b"evil", b"good"), "not signed by its own key"),
        (changed(request(), b"\x02\x01\x00", b"\x02\x01\x07"), "not a certificate"),
        (
            changed(request(), P256_OID, b"\x2a" + b"\x01" * 7),
            "not a certificate",
        ),
        ("", "not a certificate request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "not a certificate request"),
        (request()[:200], "not a certificate request"),
        ("\x00" * 1000, "not a certificate request"),
        ("ä" * 1000, "not a certificate request"),
    ],
    ids=[
        "RSA 1024",
        "RSA 2048",
        "P-384",
        "Ed25519",
        "wrong signature",
        "version",
        "curve",
        "nothing",
        "no base64",
        "cut",
        "zeros",
        "not ASCII",
    ],
)
def test_a_request_that_is_not_of_a_p256_key_signed_by_itself_is_refused(
    authority, pem, words
):
    """Threat: 78."""
    with pytest.raises(BadMessage, match=words):
        authority.sign_untrusted(pem, name="lab-1")


def test_a_certificate_of_one_group_is_none_of_another(authority):
    """Threat: 78."""
    other = GroupAuthority(GroupName("analysisA"), now=1_800_000_000.0)
    pem = other.sign_untrusted(request(), name="lab-1")
    leaf = x509.load_pem_x509_certificate(pem.encode())
    ca = x509.load_pem_x509_certificate(authority.certificate_pem.encode())

    with pytest.raises(InvalidSignature):
        leaf.verify_directly_issued_by(ca)
