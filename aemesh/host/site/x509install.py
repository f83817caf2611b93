"""Puts certificate, key and the site's files in a role's ``x509/``, once all fits.

Everything is first laid out in a private folder beside it and read as an agent will
read it; only what passes is moved in place.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aemesh import limits
from aemesh.errors import CertificateFileError, KeyFileError, SettingsError
from aemesh.host.folders import make_private, remove_tree
from aemesh.host.site.checkedfile import read_checked, read_given
from aemesh.host.site.x509credentials import (
    CERTIFICATE_FILE,
    KEY_FILE,
    X509Credentials,
    read_credentials,
    read_key_pem,
)
from aemesh.host.site.x509files import CRL_FILE, FOLDER, SITE_FILES, read_anchors
from aemesh.host.wholefile import write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aemesh.host.keys.keystore import Identity
    from aemesh.model.trust import Role

_PUBLIC_MODE = 0o644
_PRIVATE_MODE = 0o600


@dataclass(frozen=True, slots=True)
class Given:
    """What the user named: a certificate, its key, and the site's folder."""

    certificate: Path
    key: Path | None = None  # None: the node's own, or the one that is in place
    site: Path | None = None  # None: what is in place


@dataclass(frozen=True, slots=True)
class Installed:
    """What was done."""

    credentials: X509Credentials
    written: tuple[Path, ...]
    removed: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class _Piece:
    """One file to be: its bytes, and where they came from, for messages."""

    data: bytes
    source: Path


def install(
    state: Path, role: Role, given: Given, *, identity: Identity, now: float
) -> Installed:
    """Check all that is given together with what is there, and put it in place.

    `state` is the role's folder.  Raises `SettingsError` and changes nothing if an
    agent could not start with it.
    """
    folder = state / FOLDER
    fresh = _given_pieces(given)
    pieces = _present_pieces(folder, without=frozenset(fresh)) | fresh
    with _laid_out(state, pieces) as trial, _telling_sources(trial, pieces):
        if given.key is None:
            _drop_other_key(trial, role, identity, now)
        read_anchors(trial, role.other)
        credentials = read_credentials(trial, role, identity, now=now)
    make_private(folder)
    written = [folder / name for name in _order(fresh)]
    for path in written:
        write_whole(path, fresh[path.name].data, mode=_mode(path.name))
    return Installed(credentials, tuple(written), _remove_key(folder, credentials))


def _given_pieces(given: Given) -> dict[str, _Piece]:
    found = {}
    for name in SITE_FILES if given.site is not None else ():
        assert given.site is not None
        path = given.site / name
        data = read_checked(path, most=_most(name), error=CertificateFileError)
        if data is not None:
            found[name] = _Piece(data, path)
    if given.site is not None and not found:
        what = f"{given.site} has nothing of a site"
        raise SettingsError(what, why=f"expected {', '.join(SITE_FILES)}")
    if given.key is not None:
        key = read_key_pem(given.key)
        if key is None:
            what = f"there is no {given.key}"
            raise KeyFileError(what)
        found[KEY_FILE] = _Piece(key[1], given.key)
    pem = read_given(
        given.certificate,
        most=_most(CERTIFICATE_FILE),
        error=CertificateFileError,
    )
    return found | {CERTIFICATE_FILE: _Piece(pem, given.certificate)}


def _present_pieces(folder: Path, *, without: frozenset[str]) -> dict[str, _Piece]:
    """Return what is in place and stays there: what goes may be damaged."""
    found = {}
    for name in (name for name in SITE_FILES if name not in without):
        path = folder / name
        data = read_checked(path, most=_most(name), error=CertificateFileError)
        if data is not None:
            found[name] = _Piece(data, path)
    key = None if KEY_FILE in without else read_key_pem(folder / KEY_FILE)
    if key is not None:
        found[KEY_FILE] = _Piece(key[1], folder / KEY_FILE)
    return found


@contextlib.contextmanager
def _laid_out(state: Path, pieces: dict[str, _Piece]) -> Iterator[Path]:
    trial = Path(tempfile.mkdtemp(prefix=f".{FOLDER}-", dir=state))
    try:
        for name, piece in pieces.items():
            write_whole(trial / name, piece.data, mode=_mode(name))
        yield trial
    finally:
        remove_tree(trial)


@contextlib.contextmanager
def _telling_sources(trial: Path, pieces: dict[str, _Piece]) -> Iterator[None]:
    """Let errors name the user's files, not those of the trial."""
    try:
        yield
    except SettingsError as error:
        texts = [error.what, error.why, error.hint]
        for name, piece in pieces.items():
            texts = [
                text and text.replace(str(trial / name), str(piece.source))
                for text in texts
            ]
        place = str(trial.parent / FOLDER)
        what, why, hint = (text and text.replace(str(trial), place) for text in texts)
        raise type(error)(what or "", why=why, hint=hint) from None


def _drop_other_key(trial: Path, role: Role, identity: Identity, now: float) -> None:
    """Leave out a key that was in place if the certificate is over the node's own."""
    kept = trial / KEY_FILE
    aside = trial / f"{KEY_FILE}.aside"
    if not kept.exists():
        return
    kept.rename(aside)
    with contextlib.suppress(SettingsError):
        read_credentials(trial, role, identity, now=now)
        aside.unlink()
        return
    aside.rename(kept)


def _remove_key(folder: Path, credentials: X509Credentials) -> tuple[Path, ...]:
    path = folder / KEY_FILE
    if not credentials.is_node_key or not path.exists():
        return ()
    path.unlink()
    return (path,)


def _order(names: dict[str, _Piece]) -> list[str]:
    """Return the names as they are written: the certificate last, over its key."""
    return sorted(names, key=[*SITE_FILES, KEY_FILE, CERTIFICATE_FILE].index)


def _mode(name: str) -> int:
    return _PRIVATE_MODE if name == KEY_FILE else _PUBLIC_MODE


def _most(name: str) -> int:
    if name == CRL_FILE:
        return limits.CRL_FILE_BYTES
    return limits.CERTIFICATE_FILE_BYTES
