"""Nothing private is in this repository, and `keys/` lets nothing private in."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A block's first line and at least one line of base64: code that only names the
# form, as this pattern does, is none.
_PRIVATE = re.compile(
    rb"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\s+"
    rb"(?:[A-Za-z-]+: [^\n]*\n+)*[A-Za-z0-9+/=]{16}"
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with our `keys/` in it."""
    shutil.copytree(ROOT / "keys", tmp_path / "keys")
    git(tmp_path, "init", "--quiet")
    return tmp_path


def git(folder: Path, *words: str, check: bool = True) -> bytes:
    """Run git in a folder; return what it printed."""
    argv = ["git", "-c", "safe.directory=*", "-C", str(folder), *words]
    return subprocess.run(argv, check=check, capture_output=True).stdout


def tracked_files() -> list[Path]:
    """Return every file of ours that git has, or would take in."""
    listed = git(ROOT, "ls-files", "-co", "--exclude-standard", "-z", check=False)
    names = [name.decode() for name in listed.split(b"\0") if name]
    if not names:
        pytest.skip("this is no git checkout")
    return [path for name in names if (path := ROOT / name).is_file()]


def private_blocks(data: bytes) -> int:
    """Return how many private keys in PEM or OpenSSH's form are in these bytes."""
    escaped = data.replace(rb"\r", b"").replace(rb"\n", b"\n")  # as in JSON
    return len(_PRIVATE.findall(escaped))


def test_no_private_key_is_in_the_repository():
    found = [path for path in tracked_files() if private_blocks(path.read_bytes())]

    assert not found


@pytest.mark.parametrize(
    "kind",
    [["-t", "ed25519"], ["-t", "ecdsa", "-m", "PEM"], ["-t", "rsa", "-m", "PKCS8"]],
)
@pytest.mark.parametrize("passphrase", ["", "a passphrase"])
def test_a_private_key_would_be_found(tmp_path: Path, kind: list[str], passphrase: str):
    path = tmp_path / "key"
    subprocess.run(
        ["ssh-keygen", "-q", *kind, "-N", passphrase, "-f", path], check=True
    )

    assert private_blocks(path.read_bytes()) == 1
    assert private_blocks(repr(path.read_text()).encode()) == 1  # inside of a vector
    assert private_blocks(path.with_suffix(".pub").read_bytes()) == 0


@pytest.mark.parametrize(
    "name",
    [
        "id_ed25519",
        "masters-ca.key",
        "masters-ca.key.pem",
        "private-ca.pem",
        "secret-ca.pem",
        "workers-ca.p12",
        "leaf.pem",
        "anything",
        "sub/id_ed25519",
    ],
)
def test_git_refuses_what_may_be_private(repository: Path, name: str):
    path = repository / "keys" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("private\n")

    git(repository, "add", "keys")

    assert f"keys/{name}".encode() not in git(repository, "ls-files", "keys")


@pytest.mark.parametrize(
    "name",
    [
        *("README.md", ".gitignore", "masters-ca.pem", "workers-ca.pem", "crl.pem"),
        "site.toml",
        *("known_masters", "known_workers", "id_ed25519.pub", "alice.pub"),
    ],
)
def test_git_takes_what_is_public(repository: Path, name: str):
    (repository / "keys" / name).touch()

    git(repository, "add", "keys")

    assert f"keys/{name}".encode() in git(repository, "ls-files", "keys").split(b"\n")


def test_the_commands_for_the_cas_do_what_the_readme_says(repository: Path):
    readme = (ROOT / "keys" / "README.md").read_text()
    commands = re.findall(r"^\$ (openssl req .*)$", readme, re.MULTILINE)
    show = re.search(r"^\$ (openssl x509 .*)$", readme, re.MULTILINE)

    for command in commands:
        argv = [*shlex.split(command), "-passout", "pass:of a test"]
        subprocess.run(argv, cwd=repository, check=True, capture_output=True)
    git(repository, "add", ".", check=False)

    tracked = git(repository, "ls-files", "keys").decode().split()
    assert {"keys/masters-ca.pem", "keys/workers-ca.pem"} <= set(tracked)
    assert show is not None
    shown = subprocess.run(
        ["sh", "-c", show[1]], cwd=repository, check=True, capture_output=True
    )
    assert shown.stdout.startswith(b"256 SHA256:")
