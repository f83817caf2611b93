"""The identity of a node: one Ed25519 key, made once, kept in its state directory.

``id_ed25519`` is PKCS8 PEM, for `ssl` cannot read OpenSSH's own form;
``id_ed25519.pub`` and ``id_ed25519.crt`` stand beside it for people and other
programs, and are made again when missing.
"""

from __future__ import annotations

import os
import ssl
import stat
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from nacl.signing import SigningKey

from aemesh.errors import KeyFileError
from aemesh.host.folders import make_private
from aemesh.host.keys.certificate import self_signed
from aemesh.host.wholefile import write_once, write_whole
from aemesh.model.key import KeyId, PublicKey

if TYPE_CHECKING:
    from pathlib import Path

KEY_FILE = "id_ed25519"
# A PKCS8 Ed25519 key has 119 bytes; beyond this the file is something else.
_KEY_FILE_BYTES = 16 * 1024
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_PUBLIC_MODE = 0o644


class Identity:
    """A node's key: signs, and enters TLS contexts; it never shows what is private."""

    __slots__ = ("_pem", "_signing", "certificate", "name", "public")

    def __init__(self, name: str, key: Ed25519PrivateKey) -> None:
        self.name = name
        self._signing = SigningKey(key.private_bytes_raw())
        self._pem = _private_pem(key)
        self.public = PublicKey(key.public_key().public_bytes_raw())
        self.certificate = self_signed(key)  # DER

    @classmethod
    def ephemeral(cls, name: str) -> Identity:
        """Return a fresh identity that is nowhere on disk and ends with the process."""
        return cls(name, Ed25519PrivateKey.generate())

    @property
    def key_id(self) -> KeyId:
        """The fingerprint of the public key."""
        return self.public.key_id

    @property
    def chain(self) -> tuple[bytes, ...]:
        """The certificate alone: it is self-signed."""
        return (self.certificate,)

    @property
    def certificate_pem(self) -> str:
        """The certificate as PEM."""
        return ssl.DER_cert_to_PEM_cert(self.certificate)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the Ed25519 signature of `message`."""
        return self._signing.sign(message).signature

    def load_into(
        self, context: ssl.SSLContext, certificate: bytes | None = None
    ) -> None:
        """Make this identity the own certificate of a TLS context.

        `certificate` is DER, of this key, if a CA's takes the place of our own.
        """
        pem = ssl.DER_cert_to_PEM_cert(certificate or self.certificate)
        load_pem_into(context, self._pem + pem.encode())

    def request(self) -> str:
        """Return a request for a certificate of this key, PEM; it says our name."""
        key = Ed25519PrivateKey.from_private_bytes(bytes(self._signing))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = x509.CertificateSigningRequestBuilder(name)
        return builder.sign(key, None).public_bytes(Encoding.PEM).decode()

    def __repr__(self) -> str:
        return f"Identity({self.name!r}, {self.key_id})"

    def __reduce__(self) -> NoReturn:
        msg = "an identity never leaves its process"
        raise TypeError(msg)


def load_or_make(folder: Path, name: str) -> Identity:
    """Return the identity kept in `folder`; make it there if there is none.

    Two processes that start at once get the same one.  An existing key is never
    overwritten; one that others could read is refused with `KeyFileError`.
    """
    make_private(folder, error=KeyFileError)
    path = folder / KEY_FILE
    key = load_key(path)
    if key is None:
        make_key(path)
        key = load_key(path)
    if key is None:
        what = f"key {path} vanished"
        raise KeyFileError(what, why="somebody removed it as we made it")
    identity = Identity(name, key)
    _write_public(folder, identity)
    return identity


def make_key(path: Path) -> None:
    """Write a fresh key, unless there is one."""
    write_once(path, _private_pem(Ed25519PrivateKey.generate()))


def load_key(path: Path) -> Ed25519PrivateKey | None:
    """Return the key in a file, or None if there is no file; may raise `KeyFileError`.

    For the modules that keep a node's keys; nobody else handles a private one.
    """
    hint = f"move {path} away; the next start makes a new one, a stranger to all"
    pem = read_private(path, hint=hint)
    return None if pem is None else _parse(path, pem, hint)


def load_pem_into(context: ssl.SSLContext, pem: bytes) -> None:
    """Make a private key and its certificate, PEM, the own ones of a TLS context.

    `ssl` reads keys from files only; the file is one in memory that no name leads to.
    """
    fd = os.memfd_create("aemesh-identity", os.MFD_CLOEXEC)
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}")


def read_private(path: Path, *, hint: str | None = None) -> bytes | None:
    """Return what is in a private file of ours, or None if there is no file.

    Raises `KeyFileError` if it is not ours or others can read it; `hint` says what
    to do about a file that cannot be used at all.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error), hint) from error
    with os.fdopen(fd, "rb") as file:
        _check_private(path, os.fstat(fd), hint)
        return file.read(_KEY_FILE_BYTES)


def _check_private(path: Path, status: os.stat_result, hint: str | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise _unreadable(path, "it is not a file", hint)
    if status.st_uid != os.geteuid():
        what = f"key {path} is not ours"
        why = f"it belongs to user {status.st_uid}, we are user {os.geteuid()}"
        raise KeyFileError(what, why=why)
    if status.st_mode & _OTHERS:
        what = f"key {path} is open to others"
        why = f"its mode is {stat.S_IMODE(status.st_mode):04o}, expected 0600"
        raise KeyFileError(what, why=why, hint=f"chmod 600 {path}")


def _parse(path: Path, pem: bytes, hint: str) -> Ed25519PrivateKey:
    # No `from`: the text of a parser's error could quote the file.
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise _unreadable(path, "it is protected by a passphrase", hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _unreadable(path, "it is no PKCS8 PEM", hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _unreadable(path, "it is not an Ed25519 key", hint)
    return key


def _unreadable(path: Path, why: str, hint: str | None) -> KeyFileError:
    return KeyFileError(f"key {path} cannot be used", why=why, hint=hint)


def _private_pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write_public(folder: Path, identity: Identity) -> None:
    """Write the two public files where they are missing or of another key."""
    line = f"{identity.public.openssh} {identity.name}\n"
    for name, text, enough in (
        (f"{KEY_FILE}.pub", line, identity.public.openssh),
        (f"{KEY_FILE}.crt", identity.certificate_pem, identity.certificate_pem),
    ):
        path = folder / name
        if not _starts_with(path, enough):
            write_whole(path, text.encode(), mode=_PUBLIC_MODE)


def _starts_with(path: Path, text: str) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(text)) == text.encode()
    except OSError:
        return False
