"""A PKI that the `openssl` command made, as a company has one, for tests."""

from __future__ import annotations

import subprocess
from pathlib import Path


def openssl(*words: str | Path, stdin: str = "") -> None:
    done = subprocess.run(
        ["openssl", *words], input=stdin, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


EXTENSIONS = {
    "ca": "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n",
    "leaf": "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature\n"
    "extendedKeyUsage=serverAuth,clientAuth\n",
}
IDS = "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"


class Company:
    """A PKI as a company has it: a root, a CA below it, and leaves with DNS names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.make("root", "ca")
        self.make("issuing", "ca", by="root")

    def make(self, name: str, kind: str, *, by: str = "", san: str = "", key="ec"):
        """Make NAME.key and NAME.crt, signed by another or by itself."""
        f = self.folder
        kinds = {
            "ec": ("EC", "-pkeyopt", "ec_paramgen_curve:P-256"),
            "p384": ("EC", "-pkeyopt", "ec_paramgen_curve:P-384"),
            "rsa": ("RSA", "-pkeyopt", "rsa_keygen_bits:2048"),
            "ed25519": ("ED25519",),
        }
        out = f / f"{name}.key"
        openssl("genpkey", "-algorithm", *kinds[key], "-out", out)
        out.chmod(0o600)
        text = EXTENSIONS[kind] + IDS + (f"subjectAltName={san}\n" if san else "")
        (f / "ext").write_text(text)
        subject = f"/O=Example/CN={name}"
        openssl("req", "-new", "-key", out, "-subj", subject, "-out", f / "csr")
        signer = (
            ["-CA", f / f"{by}.crt", "-CAkey", f / f"{by}.key", "-CAcreateserial"]
            if by
            else ["-signkey", out]
        )
        openssl(
            *("x509", "-req", "-in", f / "csr", "-days", "30", "-extfile", f / "ext"),
            *("-out", f / f"{name}.crt", *signer),
        )

    def crl(self, by: str, *gone: str) -> bytes:
        """Return a list of what a CA took back, PEM."""
        f = self.folder
        (f / "index").write_text("")
        (f / "number").write_text("01\n")
        (f / "conf").write_text(
            f"[ca]\ndefault_ca=c\n[c]\ndatabase={f}/index\ncrlnumber={f}/number\n"
            "default_md=sha256\ndefault_crl_days=30\ncrl_extensions=e\n"
            "[e]\nauthorityKeyIdentifier=keyid\n"
        )
        with_ca = ("-config", f / "conf", "-cert", f / f"{by}.crt")
        with_key = ("-keyfile", f / f"{by}.key")
        for name in gone:
            openssl("ca", *with_ca, *with_key, "-revoke", f / f"{name}.crt")
        openssl("ca", *with_ca, *with_key, "-gencrl", "-out", f / "crl")
        return (f / "crl").read_bytes()

    def pem(self, *names: str) -> bytes:
        return b"".join((self.folder / f"{name}.crt").read_bytes() for name in names)
