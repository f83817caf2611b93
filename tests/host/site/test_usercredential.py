"""The user's X.509 credential: where it is looked for, and what is not used."""

from __future__ import annotations

import os
import time

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from aemesh.errors import SettingsError
from aemesh.host.site.usercredential import (
    find_credential,
    needs_passphrase,
    read_credential,
)
from aemesh.testing.user_credential import make_grid

GRID = make_grid(now=time.time())


def test_it_is_looked_for_where_tools_of_grids_keep_it(tmp_path) -> None:
    """Shows: T9."""
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    (home / ".globus").mkdir(parents=True)
    temporary.mkdir()

    def find(given: str | None = None, **environ: str) -> str:
        return str(find_credential(given, environ, home=home, temporary=temporary))

    with pytest.raises(SettingsError, match="credential of yours"):
        find()
    cert = GRID.write(home / ".globus")
    assert find() == str(cert)
    proxy = temporary / f"x509up_u{os.getuid()}"
    proxy.touch()
    assert find() == str(proxy)
    assert find(X509_USER_PROXY="/a") == "/a"
    assert find("/b", X509_USER_PROXY="/a") == "/b"


def test_certificate_and_key_are_read_from_two_files_or_one(tmp_path) -> None:
    """Shows: T9."""
    two = GRID.write(tmp_path)
    assert read_credential(two).subject == GRID.user.subject
    one = tmp_path / "one.pem"
    one.touch(mode=0o600)
    one.write_bytes(two.read_bytes() + (tmp_path / "userkey.pem").read_bytes())
    assert read_credential(one).certificates == GRID.user.certificates


def test_a_key_that_others_may_read_is_not_used(tmp_path) -> None:
    """Shows: T9."""
    path = GRID.write(tmp_path)
    (tmp_path / "userkey.pem").chmod(0o640)
    with pytest.raises(SettingsError, match="others may read"):
        read_credential(path)


def test_a_key_with_a_passphrase_needs_it(tmp_path) -> None:
    """Shows: T9."""
    path = GRID.write(tmp_path)
    assert not needs_passphrase(path)
    secret = BestAvailableEncryption(b"hush")
    form = (Encoding.PEM, PrivateFormat.PKCS8, secret)
    (tmp_path / "userkey.pem").write_bytes(GRID.user.key.private_bytes(*form))
    assert needs_passphrase(path)
    for wrong in ("", "loud"):
        with pytest.raises(SettingsError, match="passphrase"):
            read_credential(path, passphrase=wrong)
    assert read_credential(path, passphrase="hush").subject == GRID.user.subject


def test_a_key_of_another_certificate_is_refused(tmp_path) -> None:
    """Shows: T9."""
    path = GRID.write(tmp_path)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    other = make_grid(now=time.time()).user.key.private_bytes(*form)
    (tmp_path / "userkey.pem").write_bytes(other)
    with pytest.raises(SettingsError, match="another certificate"):
        read_credential(path)


def test_what_is_no_credential_is_told(tmp_path) -> None:
    """Shows: T9."""
    path = tmp_path / "empty.pem"
    with pytest.raises(SettingsError, match="No such file"):
        read_credential(path)
    path.touch(mode=0o600)
    with pytest.raises(SettingsError, match="no private key"):
        read_credential(path)
