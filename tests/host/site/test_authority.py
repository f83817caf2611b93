"""A site's own CAs: what they sign, what they take back, and who else agrees."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from aemesh.errors import (
    CertificateFileError,
    KeyFileError,
    SettingsError,
    UnknownNameError,
)
from aemesh.host.keys.keystore import load_or_make
from aemesh.host.site.authority import CERTIFICATE_DAYS, CRL_DAYS, Order, SiteAuthority
from aemesh.host.site.issued import Issued
from aemesh.host.site.x509credentials import read_credentials
from aemesh.host.site.x509files import read_anchors
from aemesh.host.site.x509install import Given, install
from aemesh.model.names import NodeName
from aemesh.model.trust import Reason, Role, Verdict
from aemesh.policy.x509 import Certified, verify_untrusted
from aemesh.testing.pki import DAY, NOW, new_key

PC7 = NodeName("pc7")


@pytest.fixture
def site(tmp_path: Path) -> SiteAuthority:
    made = SiteAuthority(tmp_path / "ca")
    made.make(site="lab", days=1825, now=NOW)
    return made


def order(role=Role.WORKER, name="pc7", **changes) -> Order:
    return Order(role=role, name=NodeName(name), **changes)


def leaf_of(path: Path) -> bytes:
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    return certificate.public_bytes(Encoding.DER)


def judged(site: SiteAuthority, path: Path, role: Role, now=NOW):
    anchors = read_anchors(site.public, role)
    return verify_untrusted((leaf_of(path),), anchors, role=role, now=now)


def openssl(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", *words], capture_output=True, text=True, check=False
    )


def test_the_private_half_is_private_and_the_public_one_is_not(site: SiteAuthority):
    modes = {
        str(path.relative_to(site.folder)): path.stat().st_mode & 0o777
        for path in site.folder.rglob("*")
    }

    assert site.folder.stat().st_mode & 0o777 == 0o700
    assert modes == {
        ".lock": 0o600,
        "masters-ca.key": 0o600,
        "workers-ca.key": 0o600,
        "keys": 0o755,
        "keys/masters-ca.pem": 0o644,
        "keys/workers-ca.pem": 0o644,
        "keys/crl.pem": 0o644,
        "keys/site.toml": 0o644,
    }


@pytest.mark.parametrize("role", Role)
def test_what_is_signed_is_what_the_other_side_asks_for(
    site: SiteAuthority, role: Role
):
    """Shows: T3."""
    issued, path, key_path = site.issue(order(role), now=NOW)

    found = judged(site, path, role)

    assert isinstance(found, Certified)
    assert found.identity == f"aemesh://lab/{role.value}/pc7"
    assert str(found.key_id) == issued.key
    assert key_path is not None
    assert key_path.stat().st_mode & 0o777 == 0o600
    # The other CA says nothing of it.
    assert isinstance(judged(site, path, role.other), Verdict)


def test_openssl_agrees(tmp_path: Path):
    now = time.time()
    site = SiteAuthority(tmp_path / "ca")
    site.make(site="lab", days=10, now=now)
    issued, path, _ = site.issue(order(), now=now)
    strict = ("-x509_strict", "-policy_check", "-crl_check")
    for purpose in ("sslclient", "sslserver"):
        done = openssl(
            *("verify", *strict, "-purpose", purpose),
            *("-CAfile", site.public / "workers-ca.pem"),
            *("-CRLfile", site.public / "crl.pem", path),
        )
        assert done.returncode == 0, done.stderr

    site.revoke("pc7", role=None, reason="key-compromise", now=now, days=1)
    done = openssl(
        *("verify", *strict, "-CAfile", site.public / "workers-ca.pem"),
        *("-CRLfile", site.public / "crl.pem", path),
    )
    assert "certificate revoked" in done.stderr
    serial = openssl("x509", "-in", path, "-noout", "-serial").stdout
    assert serial.strip().partition("=")[2].lstrip("0") == issued.serial
    text = openssl("x509", "-in", site.public / "masters-ca.pem", "-noout", "-text")
    assert "CA:TRUE, pathlen:0" in text.stdout
    assert "Certificate Sign, CRL Sign" in text.stdout


def test_of_a_request_only_the_key_is_taken(site: SiteAuthority, tmp_path: Path):
    """Its sender asks for another name, another role, and to be a CA."""
    key = new_key()
    uri = x509.UniformResourceIdentifier("aemesh://lab/master/boss")
    request = (
        x509.CertificateSigningRequestBuilder(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "boss")])
        )
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    csr = tmp_path / "csr"
    csr.write_bytes(request.public_bytes(Encoding.PEM))

    _, path, key_path = site.issue(order(csr=csr), now=NOW)

    assert key_path is None
    made = x509.load_pem_x509_certificate(path.read_bytes())
    assert made.public_key() == key.public_key()
    assert "boss" not in made.subject.rfc4514_string()
    found = judged(site, path, Role.WORKER)
    assert isinstance(found, Certified)
    assert found.name == "pc7"


def _forged() -> bytes:
    """Return a request over a key that its sender does not have."""
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    one = builder.sign(new_key(), hashes.SHA256()).public_bytes(Encoding.DER)
    other = builder.sign(new_key(), hashes.SHA256())
    forged = one[: -len(other.signature)] + other.signature
    # Signatures differ in length by a byte or two: take lengths that agree.
    if len(forged) != len(one):
        return _forged()
    try:
        x509.load_der_x509_csr(forged)
    except ValueError:
        return _forged()
    return x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM)


def _weak() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("pem", "told"),
    [
        (b"nonsense", "not a certificate request in PEM"),
        (_forged(), "not signed by its own key"),
        (_weak(), "RSA key has 1024 bits"),
    ],
    ids=["nonsense", "forged", "weak"],
)
def test_a_request_that_proves_no_key_of_ours_is_refused(
    site: SiteAuthority, tmp_path: Path, pem: bytes, told: str
):
    csr = tmp_path / "csr"
    csr.write_bytes(pem)

    with pytest.raises(CertificateFileError, match=told):
        site.issue(order(csr=csr), now=NOW)

    assert site.issued() == []


def test_a_node_gets_its_own_key_certified_and_starts_with_it(
    site: SiteAuthority, tmp_path: Path
):
    """Shows: T3."""
    state = tmp_path / "state" / "worker"
    identity = load_or_make(state, "pc7")
    csr = tmp_path / "csr"
    csr.write_text(identity.request())
    _, path, _ = site.issue(order(csr=csr, out=tmp_path / "pc7.crt"), now=NOW)

    install(
        state, Role.WORKER, Given(path, site=site.public), identity=identity, now=NOW
    )

    credentials = read_credentials(state / "x509", Role.WORKER, identity, now=NOW)
    assert credentials.key_id == identity.key_id
    anchors = read_anchors(state / "x509", Role.MASTER)
    assert anchors.authorities
    assert anchors.crl_required


def test_nothing_is_written_over(site: SiteAuthority):
    """Not even by a second certificate of the same name: it has another key."""
    _, path, key_path = site.issue(order(), now=NOW)
    assert key_path is not None
    before = path.read_bytes(), key_path.read_bytes()

    with pytest.raises(SettingsError, match="is there already"):
        site.issue(order(), now=NOW)
    with pytest.raises(SettingsError, match="is there already"):
        site.make(site="lab", days=1, now=NOW)

    assert (path.read_bytes(), key_path.read_bytes()) == before
    assert len(site.issued()) == 1


@pytest.mark.parametrize("out", ["here.key", "nowhere/here.crt"])
def test_a_place_that_cannot_be_is_told_before_anything_is_signed(
    site: SiteAuthority, tmp_path: Path, out: str
):
    with pytest.raises(SettingsError, match="cannot be written"):
        site.issue(order(out=tmp_path / out), now=NOW)

    assert site.issued() == []


def test_no_certificate_outlives_its_ca(site: SiteAuthority):
    issued, _, _ = site.issue(order(days=10_000), now=NOW)
    normal, _, _ = site.issue(order(name="pc8"), now=NOW)

    assert issued.ends_at == NOW + 1825 * DAY
    assert normal.ends_at == NOW + CERTIFICATE_DAYS * DAY
    with pytest.raises(CertificateFileError, match="has expired"):
        site.issue(order(name="pc9"), now=NOW + 1826 * DAY)


def test_revoking_a_name_takes_back_all_of_it(site: SiteAuthority, tmp_path: Path):
    """Threat: 42."""
    _, first, _ = site.issue(order(), now=NOW)
    _, again, _ = site.issue(order(out=tmp_path / "again.crt"), now=NOW)
    _, other, _ = site.issue(order(name="pc8"), now=NOW)
    _, boss, _ = site.issue(order(Role.MASTER), now=NOW)

    gone = site.revoke(
        "pc7", role=Role.WORKER, reason="superseded", now=NOW + 5, days=CRL_DAYS
    )

    assert len(gone) == 2
    for path in (first, again):
        verdict = judged(site, path, Role.WORKER)
        assert isinstance(verdict, Verdict)
        assert verdict.reason is Reason.REVOKED
    assert isinstance(judged(site, other, Role.WORKER), Certified)
    assert isinstance(judged(site, boss, Role.MASTER), Certified)
    assert site.revoke("pc7", role=None, reason="unspecified", now=NOW, days=1) != []
    assert site.revoke("pc7", role=None, reason="unspecified", now=NOW, days=1) == []


def test_a_serial_number_names_one(site: SiteAuthority, tmp_path: Path):
    first, _, _ = site.issue(order(), now=NOW)
    site.issue(order(out=tmp_path / "again.crt"), now=NOW)

    gone = site.revoke(
        f"0{first.serial.lower()}", role=None, reason="unspecified", now=NOW, days=1
    )

    assert [one.serial for one in gone] == [first.serial]
    assert [one.state(NOW) for one in site.issued()] == ["revoked", "valid"]
    with pytest.raises(UnknownNameError, match="known: pc7"):
        site.revoke("pc9", role=None, reason="unspecified", now=NOW, days=1)


def test_a_list_that_ended_is_made_anew(site: SiteAuthority):
    """Threat: 42."""
    _, path, _ = site.issue(order(), now=NOW)
    later = NOW + (CRL_DAYS + 1) * DAY

    stale = judged(site, path, Role.WORKER, later)
    site.write_lists(days=30, now=later)

    assert isinstance(stale, Verdict)
    assert stale.reason is Reason.CRL
    assert isinstance(judged(site, path, Role.WORKER, later), Certified)


def test_the_index_is_a_line_a_certificate(site: SiteAuthority):
    issued, _, _ = site.issue(order(), now=NOW)
    site.revoke("pc7", role=None, reason="superseded", now=NOW + 5, days=1)

    (line,) = (site.folder / "issued.jsonl").read_text().splitlines()

    assert json.loads(line) == {
        "serial": issued.serial,
        "role": "worker",
        "name": "pc7",
        "key": issued.key,
        "begins_at": NOW - 300,
        "ends_at": NOW + CERTIFICATE_DAYS * DAY,
        "revoked_at": NOW + 5,
        "reason": "superseded",
    }


def test_a_line_that_cannot_be_read_stops_all(site: SiteAuthority):
    """It may be one that takes a certificate back."""
    site.issue(order(), now=NOW)
    with (site.folder / "issued.jsonl").open("a") as file:
        file.write('{"serial": \n')

    with pytest.raises(CertificateFileError, match=r"issued.jsonl:2 cannot be read"):
        site.write_lists(days=1, now=NOW)


def test_a_passphrase_locks_the_keys(tmp_path: Path):
    folder = tmp_path / "ca"
    SiteAuthority(folder, b"secret").make(site="lab", days=1, now=NOW)

    assert SiteAuthority(folder).is_locked
    with pytest.raises(TypeError):
        load_pem_private_key((folder / "masters-ca.key").read_bytes(), None)
    with pytest.raises(KeyFileError, match="has a passphrase"):
        SiteAuthority(folder).issue(order(), now=NOW)
    with pytest.raises(KeyFileError, match="the passphrase is wrong"):
        SiteAuthority(folder, b"guess").issue(order(), now=NOW)
    assert SiteAuthority(folder, b"secret").issue(order(), now=NOW)


def test_a_key_that_others_can_read_signs_nothing(site: SiteAuthority):
    (site.folder / "workers-ca.key").chmod(0o644)

    with pytest.raises(KeyFileError, match="is open to others"):
        site.issue(order(), now=NOW)


def test_a_folder_that_is_no_ca_is_told(tmp_path: Path):
    with pytest.raises(CertificateFileError, match="is no folder of a CA") as caught:
        SiteAuthority(tmp_path).issued()

    assert "aemesh ca init" in str(caught.value.hint)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 65])
def test_a_site_has_a_plain_name(tmp_path: Path, name: str):
    with pytest.raises(SettingsError, match="a site cannot be called"):
        SiteAuthority(tmp_path / "ca").make(site=name, days=1, now=NOW)

    assert not os.listdir(tmp_path)


def test_a_certificate_s_state_follows_from_its_dates():
    one = Issued(
        serial="AB", role="worker", name="pc7", key="", begins_at=NOW, ends_at=NOW + 9
    )

    assert one.state(NOW) == "valid"
    assert one.state(NOW + 10) == "expired"
    assert one.revoked(now=NOW, reason="superseded").state(NOW + 10) == "revoked"
