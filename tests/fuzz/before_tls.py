"""Fuzzed: the preamble, certificates, chains, lists, proxies and requests."""

from __future__ import annotations

from base64 import encodebytes

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificate

from aemesh import limits
from aemesh.errors import BadMessage, RefusedError
from aemesh.host.site.checkedfile import pem_blocks
from aemesh.master.authority import GroupAuthority
from aemesh.model.names import JobId
from aemesh.model.trust import Anchors, Decision, Role
from aemesh.policy.proxy import check_proxy, decode_info_untrusted, encode_info
from aemesh.policy.x509 import Certified, authority_fault, read_claim, verify_untrusted
from aemesh.protocol.certificate import leaf_untrusted
from aemesh.protocol.preamble import (
    HEADER_BYTES,
    body_length_untrusted,
    chain_untrusted,
    encode_preamble,
    preamble_hash,
)
from aemesh.testing.pki import NOW
from aemesh.worker.delegated import DelegatedKeys
from tests.fuzz.allowed import allowed, check_told
from tests.fuzz.cutter import Cutter
from tests.fuzz.der import Template
from tests.fuzz.material import (
    BELOW_KEY,
    DEEPER_KEY,
    PROXY_KEY,
    ROOT_KEY,
    USER_KEY,
    WORKER,
    load,
    signer,
    spki,
)

DER = load()
KINDS = {
    name: Template(der)
    for name, der in {"node": WORKER.certificate, **DER}.items()
    if not name.endswith(("list", "request"))
}
PREAMBLE = encode_preamble((DER["leaf"], DER["below"]))


def preamble(data: bytes) -> bool:
    header, body = data[:HEADER_BYTES], data[HEADER_BYTES:]
    with allowed(BadMessage):
        length = body_length_untrusted(header)
        assert length <= limits.PREAMBLE_BYTES
        chain = chain_untrusted(header, body)
        assert len(body) == length
        assert encode_preamble(chain) == header + body
        assert len(preamble_hash(data)) == 64
        return True
    return False


def broken_preamble(data: bytes) -> bool:
    return preamble(Cutter(data).mutated(PREAMBLE))


def certificate(data: bytes) -> bool:
    """A certificate of any kind of key, broken as bytes or as a tree."""
    cut = Cutter(data)
    template = KINDS[cut.one_of(list(KINDS))]
    der = cut.mutated(template.der) if cut.number(2) else template.mutated(cut)
    with allowed(BadMessage):
        leaf = leaf_untrusted(der)
        assert leaf.der == der
        assert leaf.node_key is None or leaf.node_key.key_id == leaf.key_id
        return True
    return False


CHAIN = ("leaf", "below")
SIGNERS = {
    "leaf": signer(BELOW_KEY),
    "company": signer(BELOW_KEY),
    "below": signer(ROOT_KEY),
    "root": signer(ROOT_KEY),
    "root-list": signer(ROOT_KEY),
    "below-list": signer(BELOW_KEY),
    "user": signer(ROOT_KEY),
    "proxy": signer(USER_KEY),
    "further": signer(USER_KEY),
    "deeper": signer(PROXY_KEY),
    "request": signer(PROXY_KEY),
}
SIGNED = {name: Template(DER[name]) for name in SIGNERS}


def _made(cut: Cutter, name: str) -> tuple[bytes, bool]:
    """A certificate, and whether it is as its CA signed it."""
    match cut.number(8):
        case 1 | 2 | 3:
            der, again = SIGNED[name].signed(cut, SIGNERS[name]), True
        case 4:
            der, again = cut.mutated(DER[name]), False
        case 5:
            der, again = SIGNED[name].mutated(cut), False
        case 6:
            der, again = cut.piece(), False
        case _:
            der, again = DER[name], False
    return der, again


def chains(data: bytes) -> bool:
    """All that X.509 is judged by, broken or signed by a CA that signs anything."""
    cut = Cutter(data)
    site, dns = cut.one_of((("lab", ""), ("", "*.workers.example.org"), ("", "")))
    first = "company" if dns else "leaf"
    made = {n: _made(cut, n) for n in (first, "below", "root", "root-list")}
    made["below-list"] = _made(cut, "below-list")
    chain = (made[first][0], made["below"][0], cut.piece())[: 2 + cut.number(8) // 7]
    anchors = Anchors(
        authorities=(made["root"][0],),
        crls=(made["root-list"][0], made["below-list"][0])[: 2 - cut.number(3)],
        crl_required=bool(cut.number(2)),
        site=site,
        dns=dns,
    )
    found = verify_untrusted(chain, anchors, role=Role.WORKER, now=NOW)
    _check_found(found)
    if isinstance(found, Certified):
        assert found.role is Role.WORKER
        resigned = any(again for _, again in made.values())
        assert resigned or chain[:2] == (DER[first], DER["below"])
        return True
    _check_found(read_claim(chain, role=Role.WORKER, site=site, dns=dns, now=NOW))
    check_told(authority_fault(made["root"][0]))
    return False


def _check_found(found: object) -> None:
    if isinstance(found, Certified):
        check_told(found.identity)
        assert found.key_id == found.key_ids[0]
        assert 0 < len(found.name) <= 64
        assert found.name.isascii()
    else:
        assert found.decision is Decision.NO
        check_told(found.detail)


def proxies(data: bytes) -> bool:
    """A delegated chain of one or two proxies, each broken or signed again."""
    cut = Cutter(data)
    with allowed(BadMessage):
        info = cut.mutated(encode_info(cut.number(128)))
        depth = decode_info_untrusted(info).path_length
        assert depth is None or 0 <= depth < 128
    two = cut.number(2)
    names, key = (
        (("deeper", "further", "user"), DEEPER_KEY)
        if two
        else (("proxy", "user"), PROXY_KEY)
    )
    made = [_made(cut, name) for name in names]
    chain = tuple(der for der, _ in made)
    with allowed(RefusedError):
        found = check_proxy(chain, public_key=spki(key), now=NOW)
        assert found.until <= NOW + limits.DELEGATION_CAP_AFTER
        # What is no proxy in it is the user's own certificate, whoever made that: it
        # is for the service to judge, not for a worker.
        assert made[0][1] or _body(chain[0]) == _body(DER[names[0]])
        return True
    return False


def _body(der: bytes) -> bytes:
    return load_der_x509_certificate(der).tbs_certificate_bytes


def delegated(data: bytes) -> bool:
    """What a master sends of a chain: text, in which there are blocks of PEM."""
    cut = Cutter(data)
    made = [_made(cut, name)[0] for name in ("proxy", "user")]
    pem = cut.mutated(b"".join(map(_pem, made))).decode("ascii", "replace")
    keys = DelegatedKeys()
    keys._waiting[JobId("j"), 1] = PROXY_KEY
    with allowed(RefusedError):
        file = keys.take(JobId("j"), 1, pem, now=NOW)
        assert len(keys) == 0
        assert file.count(b"PRIVATE KEY") == 2
        return True
    return False


AUTHORITY = GroupAuthority("A", now=NOW)


def requests(data: bytes) -> bool:
    """A request for a certificate: nothing of it is taken but the key."""
    cut = Cutter(data)
    der, again = _made(cut, "request")
    pem = cut.mutated(_pem(der, "CERTIFICATE REQUEST")).decode("ascii", "replace")
    with allowed(BadMessage):
        signed = AUTHORITY.sign_untrusted(pem, name="member")
        leaf = load_pem_x509_certificate(signed.encode())
        assert "Mallory" not in leaf.subject.rfc4514_string()
        same = leaf.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        assert again or same == spki(PROXY_KEY)
        return True
    return False


def pem_files(data: bytes) -> bool:
    cut = Cutter(data)
    text = cut.mutated(_pem(DER["root"]) + _pem(DER["root-list"], "X509 CRL"))
    with allowed(ValueError):
        for der in pem_blocks(text, "CERTIFICATE"):
            check_told(authority_fault(der))
        return True
    return False


def _pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    begin, end = f"-----BEGIN {label}-----\n", f"-----END {label}-----\n"
    return begin.encode() + encodebytes(der) + end.encode()
