"""The folder ``x509/`` of a role: by what its peers' certificates are judged.

::

    x509/
        masters-ca.pem      CAs that sign masters; a worker reads it
        workers-ca.pem      CAs that sign workers; a master reads it
        crl.pem             revocation lists of these CAs, any number
        site.toml           the site's rules
        id.crt, id.key      our own certificate, see `x509credentials`

A site hands out the first four (`aemesh ca init` makes them, in ``keys/``).
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import CertificateFileError, quoted
from aemesh.host.folders import check_folder
from aemesh.host.site.checkedfile import pem_blocks, read_checked
from aemesh.model.trust import Anchors, Role
from aemesh.policy.certificates import Refusal, is_pattern, is_site
from aemesh.policy.crl import read_list_untrusted
from aemesh.policy.x509 import authority_fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOLDER = "x509"
AUTHORITY_FILES = {Role.MASTER: "masters-ca.pem", Role.WORKER: "workers-ca.pem"}
CRL_FILE = "crl.pem"
SITE_FILE = "site.toml"
# What a site hands out to all of its machines.
SITE_FILES = (*AUTHORITY_FILES.values(), CRL_FILE, SITE_FILE)


@dataclass(frozen=True, slots=True)
class Site:
    """What ``site.toml`` says; an empty field asks for nothing."""

    site: str = ""
    worker_dns: str = ""
    master_dns: str = ""
    crl_required: bool = False

    def dns(self, role: Role) -> str:
        """The pattern of DNS names of this role's certificates."""
        return self.worker_dns if role is Role.WORKER else self.master_dns


def read_anchors(folder: Path, peers: Role) -> Anchors:
    """Return what certificates of this role are judged by.

    `folder` is ``x509/`` itself.  Raises `CertificateFileError` if something is
    missing, damaged, writable by others, or of no use: an Ed25519 CA (threat 51).
    """
    check_x509_folder(folder, peers.other)
    site = read_site(folder)
    return Anchors(
        authorities=_read_authorities(folder / AUTHORITY_FILES[peers], peers),
        crls=_read_lists(folder / CRL_FILE, is_required=site.crl_required),
        crl_required=site.crl_required,
        site=site.site,
        dns=site.dns(peers),
    )


def read_site(folder: Path) -> Site:
    """Return what ``site.toml`` in ``x509/`` says; nothing if it is not there."""
    path = folder / SITE_FILE
    data = read_checked(path, most=limits.SITE_FILE_BYTES, error=CertificateFileError)
    if data is None:
        return Site()
    try:
        table = tomllib.loads(data.decode())
    except ValueError as error:  # no UTF-8, or no TOML
        raise _unusable(path, str(error)) from None
    for key, value in table.items():
        _check_entry(path, key, value)
    site = Site(**{key.replace("-", "_"): value for key, value in table.items()})
    if site.worker_dns and site.worker_dns.lower() == site.master_dns.lower():
        why = "worker-dns and master-dns are the same: a worker could pass for a master"
        raise _unusable(path, why)
    return site


def check_x509_folder(folder: Path, role: Role) -> None:
    """Refuse a folder of ours, in this role, that is missing or others can write."""
    if not folder.is_dir():
        what = f"there is no folder {folder}"
        hint = f"`aemesh key install --role {role.value} CERT --site DIR` makes it"
        why = "mode x509 needs a certificate and a CA"
        raise CertificateFileError(what, why=why, hint=hint)
    check_folder(folder, error=CertificateFileError)


def watched_paths(folder: Path, peers: Role) -> tuple[Path, ...]:
    """Return the files in ``x509/`` whose change may change a verdict."""
    names = (AUTHORITY_FILES[peers], CRL_FILE, SITE_FILE)
    return tuple(folder / name for name in names)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and is_site(value)


def _is_dns(value: object) -> bool:
    return isinstance(value, str) and is_pattern(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


# Each key of site.toml: whether a value fits, and what is expected.
_ENTRIES: dict[str, tuple[Callable[[object], bool], str]] = {
    "site": (_is_name, "a name of A-Z a-z 0-9 _ . -"),
    "worker-dns": (_is_dns, "a pattern like *.workers.example.org"),
    "master-dns": (_is_dns, "a pattern like *.masters.example.org"),
    "crl-required": (_is_flag, "true or false"),
}


def _check_entry(path: Path, key: str, value: object) -> None:
    if key not in _ENTRIES:
        known = ", ".join(_ENTRIES)
        raise _unusable(path, f"{quoted(key)} is not known, expected {known}")
    fits, expected = _ENTRIES[key]
    if not fits(value):
        raise _unusable(path, f"{key} is {quoted(str(value))}, expected {expected}")


def _read_authorities(path: Path, peers: Role) -> tuple[bytes, ...]:
    most = limits.CERTIFICATE_FILE_BYTES
    pem = read_checked(path, most=most, error=CertificateFileError)
    if pem is None:
        what = f"there is no {path}"
        why = f"it has the CA that signs {peers.value}s"
        role = peers.other.value
        hint = f"`aemesh key install --role {role} CERT --site DIR` puts it in place"
        raise CertificateFileError(what, why=why, hint=hint)
    found = _blocks(path, pem, "CERTIFICATE")
    if not 1 <= len(found) <= limits.AUTHORITIES:
        expected = f"{len(found)} certificates in PEM, expected 1 to"
        raise _unusable(path, f"{expected} {limits.AUTHORITIES}")
    for number, der in enumerate(found, 1):
        fault = authority_fault(der)
        if fault:
            hint = f"`aemesh ca init` makes a CA of the right kind; remove {path}"
            raise _unusable(path, f"certificate {number}: {fault}", hint)
    return found


def _read_lists(path: Path, *, is_required: bool) -> tuple[bytes, ...]:
    pem = read_checked(path, most=limits.CRL_FILE_BYTES, error=CertificateFileError)
    if pem is None:
        if is_required:
            what = f"there is no {path}"
            hint = "`aemesh ca crl` writes it; copy it from the CA's keys/"
            why = f"{SITE_FILE} says crl-required"
            raise CertificateFileError(what, why=why, hint=hint)
        return ()
    found = _blocks(path, pem, "X509 CRL")
    if len(found) > limits.CRLS:
        raise _unusable(path, f"{len(found)} lists, expected {limits.CRLS} at most")
    if not found and pem.strip():
        raise _unusable(path, "it has no X509 CRL in PEM")
    for number, der in enumerate(found, 1):
        try:
            read_list_untrusted(der)
        except Refusal:
            raise _unusable(path, f"list {number} cannot be read") from None
    return found


def _blocks(path: Path, pem: bytes, label: str) -> tuple[bytes, ...]:
    try:
        return pem_blocks(pem, label)
    except ValueError as error:
        raise _unusable(path, str(error)) from None


def _unusable(path: Path, why: str, hint: str | None = None) -> CertificateFileError:
    return CertificateFileError(f"{path} cannot be used", why=why, hint=hint)
