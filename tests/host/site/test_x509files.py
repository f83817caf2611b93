"""The folder x509/: by what peers are judged, and a node's own certificate.

Some certificates are made by the `openssl` command, as a company's PKI makes them.
"""

from __future__ import annotations

import os
import pickle
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from aemesh import limits
from aemesh.errors import CertificateFileError, KeyFileError
from aemesh.host.keys.keystore import Identity, load_or_make
from aemesh.host.site.x509credentials import X509Credentials, read_credentials
from aemesh.host.site.x509files import Site, read_anchors, read_site, watched_paths
from aemesh.host.site.x509install import Given, install
from aemesh.model.trust import Anchors, Reason, Role, Verdict
from aemesh.net.tls import client_context, server_context
from aemesh.policy.x509 import Certified, verify_untrusted
from aemesh.testing.lab_needs import has_many_users
from aemesh.testing.pki import DAY, NOW, Authority, new_key, pem_of
from tests.company import Company, openssl

MASTERS = Authority.root("masters CA", path_length=0)
WORKERS = Authority.root("workers CA", path_length=0)
WORKER_URI = "aemesh://lab/worker/pc7"


def pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    text = ssl.DER_cert_to_PEM_cert(der)
    return text.replace("CERTIFICATE", label).encode()


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return load_or_make(tmp_path / "worker", "pc7")


@pytest.fixture
def folder(tmp_path: Path, identity: Identity) -> Path:
    """The x509/ of a worker, with a certificate of a key of its own."""
    folder = tmp_path / "worker" / "x509"
    folder.mkdir(mode=0o700)
    key = new_key()
    (folder / "masters-ca.pem").write_bytes(MASTERS.pem)
    (folder / "crl.pem").write_bytes(pem(MASTERS.crl(), "X509 CRL"))
    (folder / "site.toml").write_text('site = "lab"\n')
    leaf = WORKERS.leaf("pc7", uris=[WORKER_URI], key=key)
    (folder / "id.crt").write_bytes(pem(leaf))
    write_key(folder / "id.key", pem_of(key))
    return folder


def write_key(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)


def read(folder: Path, identity: Identity, role=Role.WORKER) -> X509Credentials:
    return read_credentials(folder, role, identity, now=NOW)


# --- what peers are judged by -----------------------------------------------------


def test_the_files_of_a_site_are_what_its_peers_are_judged_by(folder: Path):
    """Shows: T3."""
    (folder / "workers-ca.pem").write_bytes(b"words before\n" + WORKERS.pem * 2)
    (folder / "site.toml").write_text(
        'site = "lab"\nworker-dns = "*.w.example.org"\ncrl-required = true\n'
    )

    masters = read_anchors(folder, Role.MASTER)
    workers = read_anchors(folder, Role.WORKER)

    assert masters == Anchors(
        (MASTERS.der,), crls=masters.crls, crl_required=True, site="lab"
    )
    assert len(masters.crls) == 1
    assert workers.authorities == (WORKERS.der, WORKERS.der)
    assert workers.dns == "*.w.example.org"


def test_a_site_may_say_nothing(folder: Path):
    (folder / "site.toml").unlink()
    (folder / "crl.pem").unlink()

    assert read_site(folder) == Site()
    assert read_anchors(folder, Role.MASTER) == Anchors((MASTERS.der,))


def test_what_is_watched_is_what_is_read(folder: Path):
    names = {path.name for path in watched_paths(folder, Role.MASTER)}

    assert names == {"masters-ca.pem", "crl.pem", "site.toml"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sites = 'lab'", '"sites" is not known'),
        ("site = 'a b'", 'site is "a b"'),
        ("site = 3", 'site is "3"'),
        ("worker-dns = '*'", 'worker-dns is "*"'),
        ("master-dns = ['*.a.org']", "master-dns is"),
        ("crl-required = 'yes'", 'crl-required is "yes"'),
        ("crl_required = true", '"crl_required" is not known'),
        ("site", "Expected"),
        ("worker-dns = '*.a.org'\nmaster-dns = '*.A.org'", "could pass for a master"),
    ],
)
def test_a_word_of_the_site_that_cannot_be_read_is_told(
    folder: Path, text: str, why: str
):
    (folder / "site.toml").write_text(text)

    with pytest.raises(CertificateFileError) as caught:
        read_anchors(folder, Role.MASTER)

    assert "site.toml cannot be used" in caught.value.what
    assert why in str(caught.value.why)


# How the folder of a worker is spoiled.
DAMAGE = {
    "no CA": lambda x: (x / "masters-ca.pem").unlink(),
    "empty CA": lambda x: (x / "masters-ca.pem").write_bytes(b""),
    "a leaf as CA": lambda x: (x / "masters-ca.pem").write_bytes(
        pem(MASTERS.leaf("m1"))
    ),
    "broken CA": lambda x: (x / "masters-ca.pem").write_bytes(pem(MASTERS.der[:-5])),
    "no base64": lambda x: (x / "masters-ca.pem").write_bytes(
        MASTERS.pem.replace(b"MII", b"!!!", 1)
    ),
    "many CAs": lambda x: (x / "masters-ca.pem").write_bytes(
        MASTERS.pem * (limits.AUTHORITIES + 1)
    ),
    "large CA": lambda x: (x / "masters-ca.pem").write_bytes(
        b" " * (limits.CERTIFICATE_FILE_BYTES + 1)
    ),
    "no list": lambda x: (
        (x / "crl.pem").unlink(),
        (x / "site.toml").write_text("crl-required = true"),
    ),
    "broken list": lambda x: (x / "crl.pem").write_bytes(pem(b"garbage", "X509 CRL")),
    "no PEM list": lambda x: (x / "crl.pem").write_bytes(MASTERS.crl()),
    "a writable CA": lambda x: (x / "masters-ca.pem").chmod(0o666),
    "a writable list": lambda x: (x / "crl.pem").chmod(0o620),
    "a writable site": lambda x: (x / "site.toml").chmod(0o606),
    "a writable folder": lambda x: x.chmod(0o777),
    "no folder": lambda x: x.rename(x.with_name("away")),
}


@pytest.mark.parametrize(
    ("case", "told"),
    [
        ("no CA", "aemesh key install --role worker CERT --site DIR"),
        ("empty CA", "0 certificates in PEM"),
        ("a leaf as CA", "it is no CA's"),
        ("broken CA", "it cannot be read"),
        ("no base64", "is not base64"),
        ("many CAs", "17 certificates"),
        ("large CA", "is too long"),
        ("no list", "aemesh ca crl"),
        ("broken list", "list 1 cannot be read"),
        ("no PEM list", "it has no X509 CRL in PEM"),
        ("a writable CA", "chmod go-w"),
        ("a writable list", "chmod go-w"),
        ("a writable site", "chmod go-w"),
        ("a writable folder", "chmod go-w"),
        ("no folder", "aemesh key install --role worker"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_at_the_start(
    folder: Path, case: str, told: str
):
    DAMAGE[case](folder)

    with pytest.raises(CertificateFileError) as caught:
        read_anchors(folder, Role.MASTER)

    error = caught.value
    assert told in f"{error} {error.hint}"
    assert str(folder) in str(error)


@pytest.mark.skipif(not has_many_users(), reason="needs a second user")
def test_a_file_of_another_user_is_refused(folder: Path):
    os.chown(folder / "masters-ca.pem", 12345, -1)

    with pytest.raises(CertificateFileError, match="is not ours"):
        read_anchors(folder, Role.MASTER)


# --- our own ----------------------------------------------------------------------


def talk(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes, bytes]:
    """Shake hands; return the certificates that client and server saw."""
    ours, theirs = socket.socketpair()
    seen: list[bytes] = []

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as link:
            seen.append(link.getpeercert(binary_form=True) or b"")
            link.sendall(b"x")

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(ours) as link:
        link.recv(1)
        came = link.getpeercert(binary_form=True) or b""
    thread.join()
    return came, seen[0]


def certified(folder: Path, identity: Identity, kind: str) -> X509Credentials:
    """Return credentials that are good now by the clock of OpenSSL."""
    begins, ends = 1.7e9, 2.2e9
    if kind == "node key":
        key = load_pem_private_key((folder.parent / "id_ed25519").read_bytes(), None)
        (folder / "id.key").unlink()
    else:
        key = new_key()
        write_key(folder / "id.key", pem_of(key))
    leaf = WORKERS.leaf(
        "pc7", uris=[WORKER_URI], key=key, begins_at=begins, ends_at=ends
    )
    (folder / "id.crt").write_bytes(pem(leaf) + WORKERS.pem)
    return read(folder, identity)


@pytest.mark.parametrize("kind", ["node key", "own key"])
def test_a_certified_key_shakes_hands_on_both_sides(
    folder: Path, identity: Identity, kind: str
):
    """Shows: T3."""
    credentials = certified(folder, identity, kind)
    other = Identity.ephemeral("m1")

    dialled = talk(
        server_context(credentials, other.certificate), client_context(other)
    )
    served = talk(
        server_context(other, credentials.certificate), client_context(credentials)
    )

    assert dialled == (credentials.certificate, other.certificate)
    assert served == (other.certificate, credentials.certificate)
    assert credentials.is_node_key is (kind == "node key")
    assert (credentials.key_id == identity.key_id) is (kind == "node key")
    assert len(credentials.chain) == 2
    assert credentials.ends_at == 2.2e9
    assert credentials.claim.name == "pc7"


def test_credentials_never_leave_their_process(folder: Path, identity: Identity):
    credentials = read(folder, identity)

    assert "PRIVATE" not in repr(credentials)
    assert WORKER_URI in repr(credentials)
    with pytest.raises(TypeError, match="never leaves its process"):
        pickle.dumps(credentials)


@pytest.mark.parametrize(
    ("leaf", "told"),
    [
        (
            WORKERS.leaf("pc7", uris=[WORKER_URI], ends_at=NOW - 60),
            "has expired: it ended at 2027-01-15 07:59:00 UTC",
        ),
        (
            MASTERS.leaf("m1", uris=["aemesh://lab/master/m1"]),
            'is for a "master", expected a worker',
        ),
        (
            WORKERS.leaf("pc7", uris=["aemesh://home/worker/pc7"]),
            "is of the site home, expected lab",
        ),
        (WORKERS.leaf("pc7", uris=[WORKER_URI]), "id.key is not the key"),
        (WORKERS.der, "is a CA's"),
        (b"\x30\x00", "cannot be read"),
    ],
    ids=["expired", "role", "site", "other key", "CA", "garbage"],
)
def test_a_certificate_that_peers_would_refuse_is_told_at_the_start(
    folder: Path, identity: Identity, leaf: bytes, told: str
):
    (folder / "id.crt").write_bytes(pem(leaf))

    with pytest.raises(CertificateFileError) as caught:
        read(folder, identity)

    assert told in str(caught.value)
    assert str(folder / "id.crt") in caught.value.what


def test_a_missing_certificate_names_the_commands_that_make_it(
    folder: Path, identity: Identity
):
    (folder / "id.crt").unlink()

    with pytest.raises(CertificateFileError) as caught:
        read(folder, identity)

    assert "`aemesh key csr --role worker`" in str(caught.value.hint)
    assert "`aemesh key install --role worker CERT`" in str(caught.value.hint)


def test_a_certificate_over_no_key_that_is_here_is_told(
    folder: Path, identity: Identity
):
    (folder / "id.key").unlink()

    with pytest.raises(CertificateFileError, match="is of another key") as caught:
        read(folder, identity)

    assert str(identity.key_id) in str(caught.value.why)


def test_our_own_ca_is_asked_if_it_is_here(folder: Path, identity: Identity):
    (folder / "workers-ca.pem").write_bytes(MASTERS.pem)

    with pytest.raises(CertificateFileError, match="no CA of ours signed it"):
        read(folder, identity)


def test_a_list_that_ended_does_not_stop_us(folder: Path, identity: Identity):
    """A fresh one may come as we run; until then our peers refuse."""
    (folder / "workers-ca.pem").write_bytes(WORKERS.pem)
    stale = WORKERS.crl(ends_at=NOW - 1)
    (folder / "crl.pem").write_bytes(pem(stale, "X509 CRL"))

    assert read(folder, identity).claim.name == "pc7"


def test_a_certificate_that_was_taken_back_stops_us(folder: Path, identity: Identity):
    leaf = ssl.PEM_cert_to_DER_cert((folder / "id.crt").read_text())
    (folder / "workers-ca.pem").write_bytes(WORKERS.pem)
    (folder / "crl.pem").write_bytes(pem(WORKERS.crl(leaf), "X509 CRL"))

    with pytest.raises(CertificateFileError, match="took the certificate back"):
        read(folder, identity)


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_key_that_others_can_read_is_refused(
    folder: Path, identity: Identity, mode: int
):
    (folder / "id.key").chmod(mode)

    with pytest.raises(KeyFileError, match="is open to others"):
        read(folder, identity)


def test_a_key_with_a_passphrase_is_told(folder: Path, identity: Identity):
    path = folder / "id.key"
    locked = folder / "locked"
    openssl("pkey", "-in", path, "-out", locked, "-aes128", "-passout", "pass:secret")
    locked.replace(path)
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match="protected by a passphrase") as caught:
        read(folder, identity)

    assert "openssl pkey" in str(caught.value.hint)


# --- made by openssl --------------------------------------------------------------


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Company:
    return Company(tmp_path_factory.mktemp("pki") / "company")


def now_of(company: Company) -> float:
    """A moment in which what `openssl` just signed counts."""
    root = x509.load_pem_x509_certificate(company.pem("root"))
    return root.not_valid_before_utc.timestamp() + 60


@pytest.mark.parametrize("key", ["ec", "p384", "rsa", "ed25519"])
def test_a_company_s_certificates_are_taken_by_their_dns_names(
    tmp_path: Path, identity: Identity, company: Company, key: str
):
    """Shows: T3."""
    company.make(
        "pc9", "leaf", by="issuing", san="DNS:pc9.workers.example.org", key=key
    )
    folder = tmp_path / "worker" / "x509"
    folder.mkdir(mode=0o700)
    (folder / "id.crt").write_bytes(company.pem("pc9", "issuing"))
    write_key(folder / "id.key", (company.folder / "pc9.key").read_bytes())
    (folder / "workers-ca.pem").write_bytes(company.pem("root"))
    (folder / "crl.pem").write_bytes(company.crl("root") + company.crl("issuing"))
    (folder / "site.toml").write_text('worker-dns = "*.workers.example.org"\n')
    now = now_of(company)

    credentials = read_credentials(folder, Role.WORKER, identity, now=now)
    anchors = read_anchors(folder, Role.WORKER)
    found = verify_untrusted(credentials.chain, anchors, role=Role.WORKER, now=now)

    assert isinstance(found, Certified)
    assert (found.name, found.identity) == ("pc9", "pc9.workers.example.org")
    assert found.key_id == credentials.key_id
    assert str(found.key_id) in fingerprint(folder / "id.key")
    server_context(credentials, identity.certificate)


def fingerprint(key: Path) -> str:
    """Return what `ssh-keygen -l` says of a private key in PEM."""
    public = key.with_name("public")
    openssl("pkey", "-in", key, "-pubout", "-out", public)
    line = subprocess.run(
        ["ssh-keygen", "-i", "-m", "PKCS8", "-f", public],
        capture_output=True,
        check=False,
    )
    if line.returncode:  # ssh-keygen reads no Ed25519 in this form
        raw = load_pem_private_key(key.read_bytes(), None).public_key()
        assert isinstance(raw, ed25519.Ed25519PublicKey)
        return fingerprint_of(
            raw.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH), public
        )
    return fingerprint_of(line.stdout, public)


def fingerprint_of(line: bytes, path: Path) -> str:
    path.write_bytes(line)
    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize(("by", "gone"), [("issuing", "pc8"), ("root", "issuing")])
def test_what_openssl_took_back_is_refused(company: Company, by: str, gone: str):
    """Threat: 42."""
    company.make("pc8", "leaf", by="issuing", san=f"URI:{WORKER_URI}")
    chain = tuple(
        ssl.PEM_cert_to_DER_cert(company.pem(name).decode())
        for name in ("pc8", "issuing")
    )
    root = ssl.PEM_cert_to_DER_cert(company.pem("root").decode())
    crl = x509.load_pem_x509_crl(company.crl(by, gone)).public_bytes(Encoding.DER)

    found = verify_untrusted(
        chain, Anchors((root,), crls=(crl,)), role=Role.WORKER, now=now_of(company)
    )

    assert isinstance(found, Verdict)
    assert found.reason is Reason.REVOKED


def test_an_old_form_of_a_key_is_read(folder: Path, identity: Identity):
    """What `openssl ecparam -genkey` writes: its parameters, then a SEC1 key."""
    path = folder / "id.key"
    params = ("ecparam", "-name", "prime256v1", "-genkey", "-out", path)
    openssl(*params)
    path.chmod(0o600)
    assert b"BEGIN EC PRIVATE KEY" in path.read_bytes()
    key = load_pem_private_key(path.read_bytes(), None)
    leaf = WORKERS.leaf("pc7", uris=[WORKER_URI], key=key)
    (folder / "id.crt").write_bytes(pem(leaf))

    server_context(read(folder, identity), identity.certificate)


# --- put in place -----------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """What a site hands out."""
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o755)
    (folder / "masters-ca.pem").write_bytes(MASTERS.pem)
    (folder / "workers-ca.pem").write_bytes(WORKERS.pem)
    crls = (MASTERS.crl(), WORKERS.crl())
    (folder / "crl.pem").write_bytes(b"".join(pem(c, "X509 CRL") for c in crls))
    (folder / "site.toml").write_text('site = "lab"\ncrl-required = true\n')
    return folder


def put(tmp_path: Path, identity: Identity, given: Given):
    return install(tmp_path / "worker", Role.WORKER, given, identity=identity, now=NOW)


def names(paths) -> list[str]:
    return [path.name for path in paths]


def test_a_certificate_of_the_node_key_is_put_in_place(
    tmp_path: Path, identity: Identity, site: Path
):
    csr = x509.load_pem_x509_csr(identity.request().encode())
    assert csr.is_signature_valid
    leaf = WORKERS.leaf("pc7", uris=[WORKER_URI], key=_node_key(tmp_path))
    crt = tmp_path / "pc7.crt"
    crt.write_bytes(pem(leaf))

    done = put(tmp_path, identity, Given(crt, site=site))

    folder = tmp_path / "worker" / "x509"
    public = ["masters-ca.pem", "workers-ca.pem", "crl.pem", "site.toml", "id.crt"]
    assert names(done.written) == public
    assert done.credentials.is_node_key
    assert sorted(os.listdir(folder)) == sorted(public)
    assert read(folder, identity).key_id == identity.key_id
    assert read_anchors(folder, Role.MASTER).crl_required
    assert not list((tmp_path / "worker").glob(".x509*"))


def _node_key(tmp_path: Path):
    return load_pem_private_key((tmp_path / "worker/id_ed25519").read_bytes(), None)


def test_a_key_that_is_given_is_kept_private(
    tmp_path: Path, identity: Identity, site: Path
):
    key, crt, key_path = new_key(), tmp_path / "a.crt", tmp_path / "a.key"
    crt.write_bytes(pem(WORKERS.leaf("pc7", uris=[WORKER_URI], key=key)))
    write_key(key_path, pem_of(key))

    done = put(tmp_path, identity, Given(crt, key_path, site))

    placed = tmp_path / "worker" / "x509" / "id.key"
    assert placed in done.written
    assert placed.stat().st_mode & 0o777 == 0o600
    assert not done.credentials.is_node_key


def test_a_renewed_certificate_needs_no_more_than_itself(
    tmp_path: Path, identity: Identity, folder: Path
):
    key = load_pem_private_key((folder / "id.key").read_bytes(), None)
    crt = tmp_path / "new.crt"
    crt.write_bytes(pem(WORKERS.leaf("pc7", uris=[WORKER_URI], key=key)))

    done = put(tmp_path, identity, Given(crt))

    assert names(done.written) == ["id.crt"]
    assert read(folder, identity).certificate == done.credentials.certificate


def test_the_key_of_before_goes_when_the_node_key_is_certified(
    tmp_path: Path, identity: Identity, folder: Path
):
    crt = tmp_path / "new.crt"
    key = _node_key(tmp_path)
    crt.write_bytes(pem(WORKERS.leaf("pc7", uris=[WORKER_URI], key=key)))

    done = put(tmp_path, identity, Given(crt))

    assert names(done.removed) == ["id.key"]
    assert not (folder / "id.key").exists()
    assert read(folder, identity).is_node_key


@pytest.mark.parametrize(
    ("leaf", "told"),
    [
        (MASTERS.leaf("m1", uris=["aemesh://lab/master/m1"]), "expected a worker"),
        (WORKERS.leaf("pc7", uris=[WORKER_URI]), "is of another key"),
        (MASTERS.leaf("pc7", uris=[WORKER_URI]), "no CA of ours signed it"),
        (WORKERS.leaf("pc7", uris=[WORKER_URI], ends_at=NOW - DAY / 2), "has expired"),
        (b"\x30\x00", "cannot be read"),
    ],
    ids=["role", "key", "CA", "expired", "garbage"],
)
def test_what_does_not_fit_changes_nothing(
    tmp_path: Path, identity: Identity, folder: Path, site: Path, leaf: bytes, told: str
):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    crt = tmp_path / "bad.crt"
    crt.write_bytes(pem(leaf))

    with pytest.raises(CertificateFileError) as caught:
        put(tmp_path, identity, Given(crt, site=site))

    assert told in str(caught.value)
    assert str(crt) in str(caught.value)  # and not where it was tried
    assert ".x509-" not in f"{caught.value} {caught.value.hint}"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_is_replaced_may_be_damaged(
    tmp_path: Path, identity: Identity, folder: Path, site: Path
):
    (folder / "id.key").chmod(0o644)
    (folder / "site.toml").write_text("nonsense")
    (folder / "crl.pem").chmod(0o666)
    key, crt, key_path = new_key(), tmp_path / "a.crt", tmp_path / "a.key"
    crt.write_bytes(pem(WORKERS.leaf("pc7", uris=[WORKER_URI], key=key)))
    write_key(key_path, pem_of(key))

    put(tmp_path, identity, Given(crt, key_path, site))

    assert (folder / "id.key").stat().st_mode & 0o777 == 0o600
    assert read_anchors(folder, Role.MASTER).crl_required


def test_a_folder_that_is_no_site_is_told(tmp_path: Path, identity: Identity):
    (tmp_path / "empty").mkdir()

    with pytest.raises(Exception, match="has nothing of a site"):
        put(tmp_path, identity, Given(tmp_path / "x", site=tmp_path / "empty"))


def test_a_list_that_was_cut_in_writing_is_not_passed_over(folder: Path):
    """The lists before it are whole, and it may be the one that takes back.

    Threat: 42
    """
    whole = pem(MASTERS.crl(), "X509 CRL")
    cut = pem(WORKERS.crl(), "X509 CRL")[:-30]
    (folder / "crl.pem").write_bytes(whole + cut)

    with pytest.raises(CertificateFileError, match="X509 CRL"):
        read_anchors(folder, Role.MASTER)
