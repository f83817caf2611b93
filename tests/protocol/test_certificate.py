"""The key in an announced certificate; anything else is a `BadMessage`."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from aemesh.errors import BadMessage
from aemesh.host.keys.keystore import Identity
from aemesh.protocol.certificate import leaf_untrusted

# The same in every run: its bytes are changed at known places.
IDENTITY = Identity("lab-1", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
DER = IDENTITY.certificate
SERIAL = x509.load_der_x509_certificate(DER).serial_number.to_bytes(16, "big")
VERSION_3 = b"\xa0\x03\x02\x01\x02"


def self_signed(key, digest=None) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "evil")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        .not_valid_after(dt.datetime(2040, 1, 1, tzinfo=dt.UTC))
        .sign(key, digest)
        .public_bytes(Encoding.DER)
    )


def test_the_key_of_our_own_certificate_is_found():
    assert leaf_untrusted(DER).node_key == IDENTITY.public
    assert leaf_untrusted(DER).key_id == IDENTITY.key_id


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP256R1()),
    ],
    ids=["RSA", "P-256"],
)
def test_a_key_of_another_kind_is_no_node_key(key):
    """Threat: 10: in mode leap it is refused before TLS (see tests/net/test_shake)."""
    leaf = leaf_untrusted(self_signed(key, hashes.SHA256()))

    assert leaf.node_key is None
    assert str(leaf.key_id).startswith("SHA256:")


def test_a_key_of_a_kind_that_nobody_has_is_refused():
    """Threat: 10."""
    key = ed448.Ed448PrivateKey.generate()

    with pytest.raises(BadMessage, match="a key of another kind, Ed448PublicKey"):
        leaf_untrusted(self_signed(key, None))


def test_another_form_of_the_same_certificate_is_refused():
    """Threat: 9: the number of unused bits before the signature."""
    other = bytearray(DER)
    other[-65] = 1

    with pytest.raises(BadMessage, match="DER"):  # which, the last bits decide
        leaf_untrusted(bytes(other))


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x00" * 100,
        b"\x30\x80" + DER[4:] + b"\x00\x00",  # BER: indefinite length
        b"\x30\x83\x00" + DER[2:],  # BER: one byte of length too many
        DER + b"\x00",
        DER + DER,
        DER[:-1],
        DER.replace(VERSION_3, b"\xa0\x03\x02\x01\x07"),  # X.509 version 8
        DER.replace(b"\x2b\x65\x70", b"\x2b\x65\x7f"),  # a key of no known kind
        DER.replace(b"\x02\x10" + SERIAL, b"\x02\x10\xff" + SERIAL[1:]),
        IDENTITY.certificate_pem.encode(),
    ],
    ids=[
        "nothing",
        "zeros",
        "indefinite",
        "long length",
        "a byte behind",
        "two",
        "cut",
        "version",
        "algorithm",
        "negative serial",
        "PEM",
    ],
)
def test_what_is_no_certificate_in_der_is_refused(der):
    """Threat: 9."""
    with pytest.raises(BadMessage):
        leaf_untrusted(der)


@settings(max_examples=300)
@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_a_certificate_with_one_byte_changed_is_a_key_or_a_bad_message(at, byte):
    """Threat: 9."""
    with suppress(BadMessage):
        leaf_untrusted(DER[:at] + bytes((byte,)) + DER[at + 1 :])


@given(st.binary(max_size=300))
def test_random_bytes_are_a_bad_message(data):
    """Threat: 9."""
    with pytest.raises(BadMessage):
        leaf_untrusted(data)
