"""The identity key: made once, private, and the same for everybody who looks."""

from __future__ import annotations

import copy
import os
import pickle
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from nacl.signing import VerifyKey

from aemesh.errors import KeyFileError
from aemesh.host.keys.keystore import Identity, load_or_make
from aemesh.testing.lab_needs import has_many_users

if TYPE_CHECKING:
    from pathlib import Path


def run(*argv: str | Path) -> str:
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return done.stdout


def test_the_second_start_finds_the_key_of_the_first(tmp_path: Path):
    """Shows: T1."""
    first = load_or_make(tmp_path, "lab-3")
    second = load_or_make(tmp_path, "lab-3")

    assert first.key_id == second.key_id
    assert first.certificate == second.certificate


def test_the_files_have_the_modes_that_ssh_wants(tmp_path: Path):
    load_or_make(tmp_path / "state", "lab-3")

    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "state").iterdir()}

    assert modes == {
        "id_ed25519": 0o600,
        "id_ed25519.pub": 0o644,
        "id_ed25519.crt": 0o644,
    }
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_wide_umask_does_not_open_the_key(tmp_path: Path):
    before = os.umask(0)
    try:
        load_or_make(tmp_path / "state", "lab-3")
    finally:
        os.umask(before)

    assert (tmp_path / "state" / "id_ed25519").stat().st_mode & 0o777 == 0o600


def test_ssh_keygen_agrees_about_the_fingerprint(tmp_path: Path):
    identity = load_or_make(tmp_path, "lab-3")

    bits, shown, comment, kind = run(
        "ssh-keygen", "-l", "-f", tmp_path / "id_ed25519.pub"
    ).split()

    assert (bits, shown, comment, kind) == (
        "256",
        str(identity.key_id),
        "lab-3",
        "(ED25519)",
    )


def test_openssl_agrees_about_key_and_certificate(tmp_path: Path):
    load_or_make(tmp_path, "lab-3")

    of_key = run("openssl", "pkey", "-in", tmp_path / "id_ed25519", "-pubout")
    of_cert = run(
        "openssl", "x509", "-in", tmp_path / "id_ed25519.crt", "-noout", "-pubkey"
    )

    assert of_key == of_cert


def test_the_certificate_has_the_profile_of_the_design(tmp_path: Path):
    cert = x509.load_der_x509_certificate(load_or_make(tmp_path, "a").certificate)
    ext = {e.oid._name: (e.critical, e.value) for e in cert.extensions}

    assert cert.subject == cert.issuer
    assert len(cert.subject.rfc4514_string()) == len("CN=aemesh ") + 32
    assert cert.not_valid_before_utc.isoformat() == "1970-01-01T00:00:00+00:00"
    assert cert.not_valid_after_utc.isoformat() == "9999-12-31T23:59:59+00:00"
    assert ext["basicConstraints"] == (True, x509.BasicConstraints(False, None))
    assert ext["keyUsage"][0] is True
    assert ext["keyUsage"][1].digital_signature
    assert not ext["keyUsage"][1].key_cert_sign
    assert {o._name for o in ext["extendedKeyUsage"][1]} == {"serverAuth", "clientAuth"}
    assert {"subjectKeyIdentifier", "authorityKeyIdentifier"} <= ext.keys()


def test_a_signature_verifies_with_the_public_key(tmp_path: Path):
    identity = load_or_make(tmp_path, "lab-3")

    signature = identity.sign(b"hello")

    VerifyKey(identity.public.raw).verify(b"hello", signature)


def test_an_identity_enters_a_tls_context_and_leaves_no_file_open(tmp_path: Path):
    identity = Identity.ephemeral("lab-3")
    before = os.listdir("/proc/self/fd")

    identity.load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))

    assert os.listdir("/proc/self/fd") == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["id_ed25519.pub", "id_ed25519.crt"])
def test_a_missing_public_file_is_made_again(name: str, tmp_path: Path):
    load_or_make(tmp_path, "lab-3")
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).unlink()

    load_or_make(tmp_path, "lab-3")

    assert (tmp_path / name).read_bytes() == before


def test_a_changed_comment_of_the_public_file_stays(tmp_path: Path):
    identity = load_or_make(tmp_path, "lab-3")
    line = f"{identity.public.openssh} the one in the corner\n"
    (tmp_path / "id_ed25519.pub").write_text(line)

    load_or_make(tmp_path, "lab-3")

    assert (tmp_path / "id_ed25519.pub").read_text() == line


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused_with_the_remedy(
    mode: int, tmp_path: Path
):
    load_or_make(tmp_path, "lab-3")
    (tmp_path / "id_ed25519").chmod(mode)

    with pytest.raises(KeyFileError) as caught:
        load_or_make(tmp_path, "lab-3")

    assert caught.value.hint == f"chmod 600 {tmp_path / 'id_ed25519'}"
    assert f"{mode:04o}" in str(caught.value)


@pytest.mark.skipif(
    os.geteuid() != 0 or not has_many_users(), reason="only root gives files away"
)
def test_a_key_of_another_user_is_refused(tmp_path: Path):
    load_or_make(tmp_path, "lab-3")
    os.chown(tmp_path / "id_ed25519", 12345, -1)

    with pytest.raises(KeyFileError, match="user 12345"):
        load_or_make(tmp_path, "lab-3")


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path):
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o770)

    with pytest.raises(KeyFileError) as caught:
        load_or_make(tmp_path / "state", "lab-3")

    assert caught.value.hint == f"chmod go-w {tmp_path / 'state'}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a key",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"\xff" * 100_000,
    ],
)
def test_a_damaged_key_is_refused_and_never_overwritten(content: bytes, tmp_path: Path):
    path = tmp_path / "id_ed25519"
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match="cannot be used"):
        load_or_make(tmp_path, "lab-3")

    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [("EC", ["-pkeyopt", "ec_paramgen_curve:P-256"]), ("X25519", [])],
)
def test_a_key_of_another_kind_is_refused(
    algorithm: str, options: list[str], tmp_path: Path
):
    path = tmp_path / "id_ed25519"
    run("openssl", "genpkey", "-algorithm", algorithm, *options, "-out", path)
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match="not an Ed25519 key"):
        load_or_make(tmp_path, "lab-3")


def test_a_key_with_a_passphrase_is_told_apart(tmp_path: Path):
    path = tmp_path / "id_ed25519"
    run(
        *("openssl", "genpkey", "-algorithm", "ED25519", "-aes256", "-pass", "pass:x"),
        *("-out", path),
    )
    path.chmod(0o600)

    with pytest.raises(KeyFileError, match="passphrase"):
        load_or_make(tmp_path, "lab-3")


def test_a_key_that_is_a_pipe_does_not_hang_the_start(tmp_path: Path):
    os.mkfifo(tmp_path / "id_ed25519", 0o600)

    with pytest.raises(KeyFileError, match="not a file"):
        load_or_make(tmp_path, "lab-3")


def test_eight_starts_at_once_make_one_key(tmp_path: Path):
    """Shows: T1."""
    program = (
        "import sys; from pathlib import Path;"
        "from aemesh.host.keys.keystore import load_or_make;"
        "print('ready', flush=True); sys.stdin.read();"
        "print(load_or_make(Path(sys.argv[1]), 'x').key_id)"
    )
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for start in starts:
        assert start.stdout.readline() == "ready\n"
    for start in starts:
        start.stdin.close()

    keys = set()
    for start in starts:
        keys.add(start.stdout.read())
        start.stdout.close()
        assert start.wait() == 0

    assert len(keys) == 1
    assert {p.name for p in tmp_path.iterdir()} == {
        "id_ed25519",
        "id_ed25519.pub",
        "id_ed25519.crt",
    }


def test_an_identity_shows_and_hands_out_nothing_private():
    identity = Identity.ephemeral("lab-3")
    secret = bytes(identity._signing)

    shown = repr(identity) + str(identity) + str(vars(type(identity)))

    assert repr(identity) == f"Identity('lab-3', {identity.key_id})"
    assert secret.hex() not in shown
    assert "PRIVATE" not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never leaves its process"):
            leak(identity)
