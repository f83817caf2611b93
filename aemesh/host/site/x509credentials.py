"""A node's own certificate and the key it is over, as a CA's word for it.

``id.crt`` is a PEM chain, leaf first; ``id.key`` is its key, PEM, 0600.  Without
``id.key`` the certificate must be over the node's own Ed25519 key.
"""

from __future__ import annotations

import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from aemesh import limits
from aemesh.errors import CertificateFileError, KeyFileError
from aemesh.host.keys.keystore import load_pem_into, read_private
from aemesh.host.site.checkedfile import pem_blocks, read_checked
from aemesh.host.site.x509files import (
    AUTHORITY_FILES,
    check_x509_folder,
    read_anchors,
    read_site,
)
from aemesh.model.trust import Reason, Verdict
from aemesh.policy.x509 import read_claim, verify_untrusted
from aemesh.protocol.nodekey import statement

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from aemesh.host.keys.keystore import Identity
    from aemesh.model.key import KeyId
    from aemesh.model.trust import Role
    from aemesh.policy.x509 import Certified
    from aemesh.protocol.hello import Ourselves

CERTIFICATE_FILE = "id.crt"
KEY_FILE = "id.key"


class X509Credentials:
    """A certified key: enters TLS contexts; it never shows what is private."""

    __slots__ = ("_identity", "_pem", "chain", "claim")

    def __init__(
        self,
        chain: tuple[bytes, ...],
        claim: Certified,
        *,
        identity: Identity | None = None,
        pem: bytes = b"",
    ) -> None:
        self.chain = chain  # DER, leaf first
        self.claim = claim  # role, name and identity that the certificate says
        self._identity = identity  # whose key is certified; None: it is in `_pem`
        self._pem = pem

    @property
    def certificate(self) -> bytes:
        """The leaf, DER."""
        return self.chain[0]

    @property
    def key_id(self) -> KeyId:
        """The fingerprint of the leaf's key."""
        return self.claim.key_id

    @property
    def ends_at(self) -> float:
        """Until when the leaf is good, seconds since 1970."""
        leaf = x509.load_der_x509_certificate(self.certificate)
        return leaf.not_valid_after_utc.timestamp()

    @property
    def is_node_key(self) -> bool:
        """Whether the certificate is over the node's own key."""
        return self._identity is not None

    def load_into(self, context: ssl.SSLContext) -> None:
        """Make the leaf the own certificate of a TLS context.

        The rest of the chain goes by HELLO: TLS pins the leaf.
        """
        if self._identity is not None:
            self._identity.load_into(context, self.certificate)
            return
        pem = ssl.DER_cert_to_PEM_cert(self.certificate)
        load_pem_into(context, self._pem + pem.encode())

    def __repr__(self) -> str:
        return f"X509Credentials({self.claim.identity!r}, {self.key_id})"

    def __reduce__(self) -> NoReturn:
        msg = "a private key never leaves its process"
        raise TypeError(msg)


def read_credentials(
    folder: Path, role: Role, identity: Identity, *, now: float
) -> X509Credentials:
    """Return our own certificate of ``x509/`` for this role.

    Raises `CertificateFileError` or `KeyFileError` for whatever a peer would refuse
    later: a wrong role, a certificate that ended or that was taken back, or one of
    another key.  Our own CA is asked only if its file is there too.
    """
    check_x509_folder(folder, role)
    path = folder / CERTIFICATE_FILE
    chain = _read_chain(path, role)
    site = read_site(folder)
    claim = read_claim(chain, role=role, site=site.site, dns=site.dns(role), now=now)
    if isinstance(claim, Verdict):
        raise _refused(path, claim, role)
    if (folder / AUTHORITY_FILES[role]).exists():
        _check_verified(path, chain, role, now)
    pem = _read_key(folder / KEY_FILE, path, chain[0])
    if pem is not None:
        return X509Credentials(chain, claim, pem=pem)
    if claim.key_id != identity.key_id:
        why = f"it is over the key {claim.key_id}, ours is {identity.key_id}"
        hint = (
            f"give its key too: `aemesh key install --role {role.value} CERT --key KEY`"
        )
        msg = f"{path} is of another key"
        raise CertificateFileError(msg, why=why, hint=hint)
    return X509Credentials(chain, claim, identity=identity)


def as_certified(
    ours: Ourselves, certified: X509Credentials, identity: Identity
) -> Ourselves:
    """Return what a node says of itself when it enters TLS with a certified key."""
    ours = replace(ours, chain=certified.chain)
    if certified.is_node_key:
        return ours
    return replace(
        ours,
        tls_key=certified.key_id,
        node_key=identity.public,
        node_sig=identity.sign(statement(certified.key_id)),
    )


def read_key_pem(path: Path) -> tuple[PrivateKeyTypes, bytes] | None:
    """Return the key in a private PEM file, and it as PKCS8; None if no file is there.

    Raises `KeyFileError` if others can read it, it has a passphrase, or is damaged.
    """
    found = read_private(path)
    if found is None:
        return None
    # No `from`: the text of a parser's error could quote the file.
    try:
        key = load_pem_private_key(found, password=None)
    except TypeError:
        hint = f"`openssl pkey -in {path} -out PLAIN` asks for it and takes it off"
        raise _bad_key(path, "it is protected by a passphrase", hint) from None
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_key(path, "it is no private key in PEM") from None
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key, pem


def _read_chain(path: Path, role: Role) -> tuple[bytes, ...]:
    most = limits.CERTIFICATE_FILE_BYTES
    pem = read_checked(path, most=most, error=CertificateFileError)
    if pem is None:
        what = f"there is no {path}"
        hint = (
            f"`aemesh key csr --role {role.value}` makes a request; "
            f"`aemesh key install --role {role.value} CERT` puts the answer in place"
        )
        why = "in mode x509 a node needs a certificate"
        raise CertificateFileError(what, why=why, hint=hint)
    try:
        chain = pem_blocks(pem, "CERTIFICATE")
    except ValueError as error:
        what = f"{path} cannot be used"
        raise CertificateFileError(what, why=str(error)) from None
    return chain


def _check_verified(
    path: Path, chain: tuple[bytes, ...], role: Role, now: float
) -> None:
    """Ask our own CA as our peers will ask it; a list that ended is their matter."""
    anchors = read_anchors(path.parent, role)
    verdict = verify_untrusted(chain, anchors, role=role, now=now)
    if isinstance(verdict, Verdict) and verdict.reason is not Reason.CRL:
        raise _refused(path, verdict, role)


def _read_key(path: Path, certificate: Path, leaf: bytes) -> bytes | None:
    """Return the key of the leaf, PKCS8 PEM, or None if there is no file."""
    found = read_key_pem(path)
    if found is None:
        return None
    key, pem = found
    wanted = x509.load_der_x509_certificate(leaf).public_key()
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*form) != wanted.public_bytes(*form):
        what = f"{certificate} is of another key"
        why = f"{path} is not the key that it is over"
        hint = f"give the right key, or remove {path} if the node's own is certified"
        raise CertificateFileError(what, why=why, hint=hint)
    return pem


def _refused(path: Path, verdict: Verdict, role: Role) -> CertificateFileError:
    return CertificateFileError(
        f"{path} cannot be used",
        why=verdict.detail,
        hint=f"`aemesh key csr --role {role.value}` makes a request for a new one",
    )


def _bad_key(path: Path, why: str, hint: str | None = None) -> KeyFileError:
    return KeyFileError(f"key {path} cannot be used", why=why, hint=hint)
