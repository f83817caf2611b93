"""The keys of delegated certificates: made here for one job, and gone with it.

The master gets a request, and sends the certificate with the job (RFC 3820 section
2.3); no private key travels.  What comes unasked finds no key and is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from aemesh import limits
from aemesh.errors import RefusedError
from aemesh.policy.certificates import Refusal, refusing
from aemesh.policy.proxy import check_proxy

if TYPE_CHECKING:
    from aemesh.model.names import JobId

# Tools of grids know RSA for certain; 2048 bits outlive any proxy.  It takes a tenth
# of a second, once a job, which no heartbeat misses.
_BITS = 2048


class DelegatedKeys:
    """Keys that wait for the certificates of their jobs, in memory alone."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[JobId, int], rsa.RSAPrivateKey] = {}

    def __repr__(self) -> str:
        return f"<DelegatedKeys {len(self._waiting)} waiting>"

    def __len__(self) -> int:
        return len(self._waiting)

    def request(self, job: JobId, generation: int) -> str:
        """Make a key for a job to come; return the request for its certificate."""
        if len(self._waiting) >= limits.DELEGATIONS_WAITING:
            what = f"no key is made for job {job}"
            raise RefusedError(what, why="too many wait for their jobs")
        key = rsa.generate_private_key(public_exponent=65537, key_size=_BITS)
        self._waiting[job, generation] = key
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "delegate")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        return builder.sign(key, SHA256()).public_bytes(Encoding.PEM).decode()

    def take(self, job: JobId, generation: int, chain_pem: str, *, now: float) -> bytes:
        """Return the job's file for a chain that came; raises `RefusedError`.

        Its order is what tools of grids expect: proxy, key, the rest of the chain.
        """
        key = self._waiting.pop((job, generation), None)
        if key is None:
            what = "a delegated certificate came that nobody asked for"
            raise RefusedError(what, why="it is dropped, with its job")
        try:
            with refusing("a certificate in it"):
                chain = x509.load_pem_x509_certificates(chain_pem.encode())
        except Refusal as refusal:
            what = "the delegated certificate is not taken"
            raise RefusedError(what, why=str(refusal)) from None
        public = key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        ders = tuple(one.public_bytes(Encoding.DER) for one in chain)
        check_proxy(ders, public_key=public, now=now)
        first, *others = (one.public_bytes(Encoding.PEM) for one in chain)
        private = key.private_bytes(
            Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
        )
        return b"".join((first, private, *others))

    def drop(self, job: JobId, generation: int) -> None:
        """Forget the key of a job that comes without a certificate."""
        self._waiting.pop((job, generation), None)

    def clear(self) -> None:
        """Forget all keys: the lease that they were made under is over."""
        self._waiting.clear()
