"""Attacks by way of delegated credentials: wrong proxies, wrong requests, leftovers."""

from __future__ import annotations

import datetime as dt
import subprocess
import time
from pathlib import Path

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from aemesh.errors import BadMessage, RefusedError, SettingsError
from aemesh.master.authority import GroupAuthority
from aemesh.master.delegation import Delegation
from aemesh.model.key import KeyId
from aemesh.model.names import GroupName, JobId
from aemesh.policy.lease import Tenancy
from aemesh.policy.proxy import PROXY_CERT_INFO, check_proxy, encode_info
from aemesh.protocol import wire
from aemesh.testing.memory_jobs import MemoryJobs
from aemesh.testing.user_credential import make_grid
from aemesh.worker.delegated import DelegatedKeys
from aemesh.worker.held import Held

NOW = float(int(time.time()))
GRID = make_grid(now=NOW)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
JOB = JobId("job-1")
INDEPENDENT = bytes.fromhex("300f020100300a06082b06010505071502")
UNKNOWN = bytes.fromhex("300f020100300a06082b0601050507157f")
LIMITED = bytes.fromhex("3012020100300d060b2b060104019b5001010109")


def proxy(
    *,
    info: bytes | None = encode_info(0),
    critical: bool = True,
    issuer: x509.Certificate = GRID.user.certificates[0],
    signer=GRID.user.key,
    key=KEY,
    life: float = 3600.0,
    begin: float = NOW - 60,
    own: str | None = "77",
    ca: bool = False,
) -> x509.Certificate:
    """A proxy as the tests want it, right if they want nothing."""
    rdns = list(issuer.subject.rdns)
    if own is not None:
        name = x509.NameAttribute(NameOID.COMMON_NAME, own)
        rdns.append(x509.RelativeDistinguishedName([name]))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(rdns))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(77)
        .not_valid_before(dt.datetime.fromtimestamp(begin, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(begin + 60 + life, dt.UTC))
    )
    if info is not None:
        value = x509.UnrecognizedExtension(PROXY_CERT_INFO, info)
        builder = builder.add_extension(value, critical=critical)
    if ca:
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(signer, SHA256())


def check(*chain: x509.Certificate):
    ders = tuple(one.public_bytes(Encoding.DER) for one in chain)
    return check_proxy(ders, public_key=PUBLIC, now=NOW)


def openssl(folder: Path, chain: list[x509.Certificate], *flags: str) -> bool:
    names = ["root.pem", "leaf.pem", "rest.pem"]
    parts = [[GRID.authority], chain[:1], chain[1:]]
    for name, part in zip(names, parts, strict=True):
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in part)
        (folder / name).write_bytes(pem)
    argv = ["openssl", "verify", *flags, "-CAfile", "root.pem"]
    argv += ["-untrusted", "rest.pem", "leaf.pem"]
    return (
        subprocess.run(argv, cwd=folder, capture_output=True, check=False).returncode
        == 0
    )


def test_a_right_proxy_is_taken_here_and_by_openssl_with_its_flag(tmp_path) -> None:
    """Threat: 50."""
    user = GRID.user.certificates[0]
    found = check(proxy(), user)

    assert "Alice" in found.subject
    assert found.until == NOW + 3600
    assert openssl(tmp_path, [proxy(), user], "-allow_proxy_certs")
    assert not openssl(tmp_path, [proxy(), user])


def test_what_the_master_signs_passes_openssl(tmp_path) -> None:
    """Shows: T9. Threat: 50."""
    csr = DelegatedKeys().request(JOB, 1)
    pem = Delegation(GRID.user, 3600.0).sign_untrusted(csr, now=NOW)
    chain = x509.load_pem_x509_certificates(pem.encode())

    assert openssl(tmp_path, chain, "-allow_proxy_certs")
    assert not openssl(tmp_path, chain)


# What OpenSSL leaves to the application is marked: policy languages and long lives.
WRONG = {
    "independent": ({"info": INDEPENDENT}, "independent", False),
    "limited": ({"info": LIMITED}, "limited", False),
    "unknown": ({"info": UNKNOWN}, "unknown", False),
    "long": ({"life": 13 * 3600.0}, "12 hours", False),
    "deep": ({"info": encode_info(1)}, "further proxies", False),
    "missing": ({"info": None}, "no ProxyCertInfo", True),
    "not critical": ({"critical": False}, "not critical", False),
    "garbage": ({"info": b"\x30\x03\x02\x01"}, "cannot be read", True),
    "another name": ({"own": None}, "subject", True),
    "a CA": ({"ca": True}, "CA", True),
    "not signed": ({"signer": KEY}, "signed", True),
    "expired": ({"begin": NOW - 7200}, "expired", True),
    "not yet": ({"begin": NOW + 3600}, "not valid yet", True),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_proxy_is_refused(name, tmp_path) -> None:
    """Threat: 50."""
    how, why, by_openssl = WRONG[name]
    chain = [proxy(**how), GRID.user.certificates[0]]

    with pytest.raises(RefusedError, match=why):
        check(*chain)
    if by_openssl:
        assert not openssl(tmp_path, chain, "-allow_proxy_certs")


def test_a_proxy_for_another_key_is_refused() -> None:
    """Threat: 50."""
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(RefusedError, match="another key"):
        check(proxy(key=other), GRID.user.certificates[0])


def test_a_proxy_may_not_be_made_from_one_of_length_0(tmp_path) -> None:
    """Threat: 50."""
    between_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    user = GRID.user.certificates[0]
    for length, fine in ((0, False), (1, True)):
        between = proxy(info=encode_info(length), key=between_key)
        chain = [proxy(issuer=between, signer=between_key, own="78"), between, user]
        assert openssl(tmp_path, chain, "-allow_proxy_certs") is fine
        if fine:
            assert check(*chain).subject == user.subject.rfc4514_string()
            continue
        with pytest.raises(RefusedError, match="so many"):
            check(*chain)


def csr_of(key, *, subject: str = "root", ca: bool = False) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    if ca:
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()


def test_of_a_request_nothing_is_taken_but_the_key() -> None:
    """Threat: 78."""
    pem = Delegation(GRID.user, 3600.0).sign_untrusted(csr_of(KEY, ca=True), now=NOW)
    made = x509.load_pem_x509_certificates(pem.encode())[0]

    assert "root" not in made.subject.rfc4514_string()
    oids = {extension.oid for extension in made.extensions}
    assert x509.BasicConstraints.oid not in oids


def test_weak_keys_and_foreign_signatures_are_refused() -> None:
    """Threat: 78."""
    delegation = Delegation(GRID.user, 3600.0)
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    der = x509.load_pem_x509_csr(csr_of(KEY).encode()).public_bytes(Encoding.DER)
    turned = x509.load_der_x509_csr(der[:-1] + bytes([der[-1] ^ 1]))
    forged = turned.public_bytes(Encoding.PEM).decode()
    curve = ec.generate_private_key(ec.SECP384R1())
    for wrong in (csr_of(weak), csr_of(curve), forged, "nonsense"):
        with pytest.raises(BadMessage):
            delegation.sign_untrusted(wrong, now=NOW)


def test_nobody_delegates_for_longer_than_12_hours() -> None:
    """Threat: 50."""
    with pytest.raises(SettingsError, match="12 hours"):
        Delegation(GRID.user, 13 * 3600.0)


def test_a_proxy_ends_with_what_it_was_made_from() -> None:
    """Shows: T9."""
    short = make_grid(now=NOW, life_after=600.0)
    csr = DelegatedKeys().request(JOB, 1)
    pem = Delegation(short.user, 3600.0).sign_untrusted(csr, now=NOW)
    made = x509.load_pem_x509_certificates(pem.encode())[0]
    assert made.not_valid_after_utc.timestamp() == NOW + 600


async def test_a_certificate_that_comes_unasked_is_dropped_with_its_job() -> None:
    """Threat: 58."""
    jobs = MemoryJobs()
    me, master = (KeyId(bytes([n]) * 32) for n in range(2))
    held = Held(Tenancy(me), jobs, lambda _: None)
    async with trio.open_nursery() as nursery:
        held.crew = nursery
        await held.assign(master, wire.Assign(group="A", generation=1))
        csr = DelegatedKeys().request(JOB, 1)
        pem = Delegation(GRID.user, 3600.0).sign_untrusted(csr, now=NOW)
        unasked = wire.Start(job=JOB, generation=1, argv=("cat",), proxy=pem)
        with pytest.raises(RefusedError, match="nobody asked"):
            await held.start(master, unasked)
        # Nor does one for another key pass when a key waits; and the key is gone then.
        await held.delegate(master, wire.Delegate(job=JOB, generation=1))
        with pytest.raises(RefusedError, match="another key"):
            await held.start(master, unasked)
        with pytest.raises(RefusedError, match="nobody asked"):
            await held.start(master, unasked)
        nursery.cancel_scope.cancel()
    assert not jobs.jobs


async def test_keys_that_wait_are_forgotten_with_the_lease() -> None:
    """Threat: 79."""
    me, master, other = (KeyId(bytes([n]) * 32) for n in range(3))
    held = Held(Tenancy(me), MemoryJobs(), lambda _: None)
    await held.assign(master, wire.Assign(group="A", generation=1))
    with pytest.raises(RefusedError):
        await held.delegate(other, wire.Delegate(job=JOB, generation=1))
    await held.delegate(master, wire.Delegate(job=JOB, generation=1))
    assert len(held._delegated) == 1
    await held.release(master, wire.Release(generation=1, term_after=0.0))
    assert len(held._delegated) == 0


def test_a_client_certificate_ends_when_it_was_asked_to() -> None:
    """Threat: 79."""
    authority = GroupAuthority(GroupName("A"), now=NOW)
    csr = csr_of(ec.generate_private_key(ec.SECP256R1()))
    pem = authority.sign_untrusted(csr, name="client 1", until=NOW + 600)
    made = x509.load_pem_x509_certificate(pem.encode())
    assert made.not_valid_after_utc.timestamp() == NOW + 600
