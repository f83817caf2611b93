"""A site's own two CAs in one folder: `aemesh ca` is the command line to it.

::

    DIR/                        0700
        masters-ca.key          0600, with a passphrase if one was given
        workers-ca.key
        issued.jsonl            what was signed and taken back
        issued/ROLE-NAME.crt    where `issue` writes unless it is told
        keys/                   public, to hand out: masters-ca.pem,
                                workers-ca.pem, crl.pem, site.toml

Two CAs, so that a worker's certificate can never pass for a master's.  Each change
is made under a lock and written down before the certificate exists: none is signed
that could not be taken back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from aemesh.errors import (
    CertificateFileError,
    SettingsError,
    UnknownNameError,
    quoted,
)
from aemesh.host.folders import check_folder, make_private
from aemesh.host.site.certrequest import read_request
from aemesh.host.site.issued import Issued, read_issued, write_issued
from aemesh.host.site.issuing import (
    DAY,
    Revoked,
    Signer,
    certify,
    make_list,
    make_signer,
)
from aemesh.host.site.signerfile import (
    PUBLIC,
    PUBLIC_MODE,
    is_locked,
    private_pem,
    read_signer,
    signer_key,
    write_signer,
)
from aemesh.host.site.x509files import CRL_FILE, SITE_FILE, read_site
from aemesh.host.wholefile import locked, write_once, write_whole
from aemesh.model.names import NodeName
from aemesh.model.trust import Role
from aemesh.policy.certificates import is_site, key_id_of

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificatePublicKeyTypes,
    )


# A site that is set up anew every five years still knows how.
AUTHORITY_DAYS = 1825
# Long enough that nobody turns certificates off, short enough that a machine that
# was given away is out without a list.
CERTIFICATE_DAYS = 365
# When it ends, everybody is refused: a quarter leaves time to remember.
CRL_DAYS = 90

_INDEX = "issued.jsonl"


@dataclass(frozen=True, slots=True)
class Order:
    """A certificate that somebody wants."""

    role: Role
    name: NodeName
    days: int = CERTIFICATE_DAYS
    csr: Path | None = None  # None: a key is made
    out: Path | None = None  # None: in issued/


class SiteAuthority:
    """The two CAs of a folder; `passphrase` opens their keys."""

    def __init__(self, folder: Path, passphrase: bytes | None = None) -> None:
        self.folder = folder
        self._passphrase = passphrase

    @property
    def public(self) -> Path:
        """The folder to hand out."""
        return self.folder / PUBLIC

    @property
    def is_locked(self) -> bool:
        """Whether the keys have a passphrase."""
        self._check()
        return is_locked(self.folder, Role.MASTER)

    def make(self, *, site: str, days: int, now: float) -> None:
        """Make both CAs, empty revocation lists and ``site.toml``."""
        if not is_site(site):
            what = f"a site cannot be called {quoted(site)}"
            raise SettingsError(what, why="expected 1 to 64 of A-Z a-z 0-9 _ . -")
        make_private(self.folder)
        with locked(self._lock):
            for role in Role:
                self._refuse_old(signer_key(self.folder, role))
            for role in Role:
                signer = make_signer(role, site, now=now, days=days)
                write_signer(self.folder, role, signer, self._passphrase)
            text = f'site = "{site}"\ncrl-required = true\n'
            self._publish(SITE_FILE, text.encode())
            self._write_lists([], days=CRL_DAYS, now=now)

    def issue(self, order: Order, *, now: float) -> tuple[Issued, Path, Path | None]:
        """Sign a certificate; return it, its file, and its key's if one was made.

        Of a request nothing is taken but the key.
        """
        signer = self._signer(order.role)
        out = order.out or self._default_out(order)
        key_path = None if order.csr else out.with_suffix(".key")
        self._check_places(out, key_path)
        made = ec.generate_private_key(ec.SECP256R1())
        public = read_request(order.csr) if order.csr else made.public_key()
        certificate = self._sign(signer, order, public, now)
        issued = _issued(certificate, order)
        with locked(self._lock):
            write_issued(self._index, [*self.issued(), issued])
        if key_path is not None:
            write_once(key_path, private_pem(made))
        pem = certificate.public_bytes(Encoding.PEM)
        write_whole(out, pem, mode=PUBLIC_MODE)
        return issued, out, key_path

    def issued(self) -> list[Issued]:
        """Return all certificates that were signed here, oldest first."""
        self._check()
        return read_issued(self._index)

    def revoke(
        self, who: str, *, role: Role | None, reason: str, now: float, days: int
    ) -> list[Issued]:
        """Take back a serial number or all of a name; write fresh lists.

        Returns what was valid, or ended, until now.
        """
        with locked(self._lock):
            entries = self.issued()
            of_role = [e for e in entries if role is None or e.role == role.value]
            called = [entry for entry in of_role if entry.is_called(who)]
            if not called:
                names = dict.fromkeys(entry.name for entry in of_role)
                msg = "certificate"
                raise UnknownNameError(msg, who, list(names))
            gone = [entry for entry in called if entry.revoked_at is None]
            after = [
                e.revoked(now=now, reason=reason) if e in gone else e for e in entries
            ]
            # First what cannot be made again; a list can.
            write_issued(self._index, after)
            self._write_lists(after, days=days, now=now)
        return gone

    def write_lists(self, *, days: int, now: float) -> Path:
        """Write fresh revocation lists of both CAs; return their file."""
        with locked(self._lock):
            self._write_lists(self.issued(), days=days, now=now)
        return self.public / CRL_FILE

    @property
    def _index(self) -> Path:
        return self.folder / _INDEX

    @property
    def _lock(self) -> Path:
        return self.folder / ".lock"

    def _check(self) -> None:
        if not signer_key(self.folder, Role.MASTER).exists():
            what = f"{self.folder} is no folder of a CA"
            hint = f"`aemesh ca init {self.folder}` makes one; `--dir` names another"
            raise CertificateFileError(what, hint=hint)
        check_folder(self.folder, error=CertificateFileError)

    def _refuse_old(self, path: Path | None) -> None:
        if path is not None and path.exists():
            what = f"{path} is there already"
            raise SettingsError(what, hint="move it away, or name another place")

    def _check_places(self, out: Path, key_path: Path | None) -> None:
        if out == key_path or not out.parent.is_dir():
            what = f"a certificate cannot be written to {out}"
            why = "its key goes there" if out == key_path else "there is no such folder"
            raise SettingsError(what, why=why, hint="give another `--out FILE`")
        self._refuse_old(out)
        self._refuse_old(key_path)

    def _default_out(self, order: Order) -> Path:
        folder = self.folder / "issued"
        make_private(folder)
        return folder / f"{order.role.value}-{order.name}.crt"

    def _signer(self, role: Role) -> Signer:
        self._check()
        return read_signer(self.folder, role, self._passphrase)

    def _sign(
        self,
        signer: Signer,
        order: Order,
        public: CertificatePublicKeyTypes,
        now: float,
    ) -> x509.Certificate:
        ends = signer.certificate.not_valid_after_utc.timestamp()
        if now >= ends:
            what = f"the {order.role.value}s CA in {self.folder} has expired"
            hint = "`aemesh ca init DIR` makes a new one"
            raise CertificateFileError(what, hint=hint)
        site = read_site(self.public).site
        uri = f"aemesh://{site}/{order.role.value}/{order.name}"
        span = now, min(now + order.days * DAY, ends)
        return certify(signer, public, uri=uri, name=order.name, span=span)

    def _publish(self, name: str, data: bytes) -> None:
        write_whole(self.public / name, data, mode=PUBLIC_MODE)

    def _write_lists(self, entries: list[Issued], *, days: int, now: float) -> None:
        lists = []
        for role in Role:
            revoked = [
                Revoked(int(entry.serial, 16), entry.revoked_at, entry.reason)
                for entry in entries
                if entry.role == role.value and entry.revoked_at is not None
            ]
            made = make_list(self._signer(role), revoked, now=now, days=days)
            lists.append(made.public_bytes(Encoding.PEM))
        self._publish(CRL_FILE, b"".join(lists))


def _issued(certificate: x509.Certificate, order: Order) -> Issued:
    return Issued(
        serial=f"{certificate.serial_number:X}",
        role=order.role.value,
        name=order.name,
        key=str(key_id_of(certificate)),
        begins_at=certificate.not_valid_before_utc.timestamp(),
        ends_at=certificate.not_valid_after_utc.timestamp(),
    )
