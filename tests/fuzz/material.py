"""Keys and certificates of the fuzzed conversations: the same in each process.

Else a finding would break nothing in the next process, and a line in `found.py` would
show nothing.  What has random bits in it stands in ``certificates.json``, written by

    python -m tests.fuzz.material
"""

from __future__ import annotations

import base64
import datetime as dt
import json
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from aemesh.host.keys.keystore import Identity
from aemesh.policy.proxy import PROXY_CERT_INFO, encode_info
from aemesh.testing.pki import DAY, NOW, Authority

FILE = Path(__file__).parent / "certificates.json"


def identity(name: str, number: int) -> Identity:
    return Identity(name, Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32))


def curve_key(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(1_000_003 * number, ec.SECP256R1())


def signer(key: ec.EllipticCurvePrivateKey):
    """What signs as a CA with this key does."""
    return lambda data: key.sign(data, ec.ECDSA(hashes.SHA256()))


MASTER, WORKER, NEXT = identity("desk", 1), identity("lab-1", 2), identity("next", 3)
ROOT_KEY, BELOW_KEY, LEAF_KEY = curve_key(1), curve_key(2), curve_key(3)
USER_KEY, PROXY_KEY, DEEPER_KEY = curve_key(4), curve_key(5), curve_key(6)


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(Encoding.DER, form)


def load() -> dict[str, bytes]:
    """The certificates, lists and requests by name, DER."""
    kept = json.loads(FILE.read_text("ascii"))
    return {name: base64.b64decode(text) for name, text in kept.items()}


def make() -> dict[str, bytes]:
    """New ones over the same keys."""
    root = Authority.root("root", key=ROOT_KEY)
    below = root.below("below", key=BELOW_KEY)
    leaf = below.leaf("lab-1", uris=("aemesh://lab/worker/lab-1",), key=LEAF_KEY)
    other = below.leaf("lab-9", hosts=("pc9.workers.example.org",), key=curve_key(9))
    company = below.leaf("pc7", hosts=("pc7.workers.example.org",), key=curve_key(7))
    return {
        "root": root.der,
        "below": below.der,
        "leaf": leaf,
        "company": company,
        "root-list": root.crl(),
        "below-list": below.crl(other),
        **_proxies(),
        **_kinds(root),
        "request": _request(PROXY_KEY),
    }


def _proxies() -> dict[str, bytes]:
    grid = Authority.root("grid", key=ROOT_KEY)
    user = _name("Grid", "Alice")
    proxy, deeper = _name("Grid", "Alice", "17"), _name("Grid", "Alice", "17", "18")
    return {
        "user": _signed(user, grid.certificate.subject, USER_KEY, ROOT_KEY),
        "proxy": _signed(proxy, user, PROXY_KEY, USER_KEY, encode_info(0)),
        "further": _signed(proxy, user, PROXY_KEY, USER_KEY, encode_info(1)),
        "deeper": _signed(deeper, proxy, DEEPER_KEY, PROXY_KEY, encode_info(0)),
    }


def _kinds(root: Authority) -> dict[str, bytes]:
    """Leaves over keys of other kinds; some are refused."""
    made = (
        ("rsa", rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        ("curve-521", ec.generate_private_key(ec.SECP521R1())),
        ("curve-brainpool", ec.generate_private_key(ec.BrainpoolP256R1())),
        ("dsa", dsa.generate_private_key(2048)),
        ("ed448", ed448.Ed448PrivateKey.generate()),
    )
    return {name: root.leaf("lab-2", key=key) for name, key in made}


def _name(*values: str) -> x509.Name:
    kinds = (NameOID.ORGANIZATION_NAME, *[NameOID.COMMON_NAME] * len(values))
    pairs = zip(kinds, values, strict=False)
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    info: bytes = b"",
) -> bytes:
    life = 8 * 3600.0 if info else 30 * DAY
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(NOW - 60))
        .not_valid_after(_moment(NOW + life))
    )
    if info:
        extension = x509.UnrecognizedExtension(PROXY_CERT_INFO, info)
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(by, hashes.SHA256()).public_bytes(Encoding.DER)


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    names = x509.SubjectAlternativeName([x509.DNSName("anybody.example.org")])
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_name("Grid", "Mallory"))
        .add_extension(names, critical=False)
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _moment(at: float):
    return dt.datetime.fromtimestamp(at, dt.UTC)


if __name__ == "__main__":
    text = {name: base64.b64encode(der).decode() for name, der in make().items()}
    FILE.write_text(json.dumps(text, indent=1) + "\n", "ascii")
