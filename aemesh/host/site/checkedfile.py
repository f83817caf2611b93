"""Public files whose content decides about trust: only we or root may write them."""

from __future__ import annotations

import base64
import binascii
import os
import re
from typing import TYPE_CHECKING

from aemesh.errors import SettingsError
from aemesh.host.folders import check_owned

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)


def read_checked(
    path: Path, *, most: int, error: type[SettingsError] = SettingsError
) -> bytes | None:
    """Return what is in a file that others cannot write, or None if there is none.

    One of more than `most` bytes is refused.
    """
    return _read(path, most=most, error=error, is_ours=True)


def read_given(
    path: Path, *, most: int, error: type[SettingsError] = SettingsError
) -> bytes:
    """Return what is in a file that the user named: whose it is does not matter."""
    found = _read(path, most=most, error=error, is_ours=False)
    if found is None:
        what = f"there is no {path}"
        raise error(what)
    return found


def pem_blocks(pem: bytes, label: str) -> tuple[bytes, ...]:
    """Return the DER of each block of a label; raises `ValueError` if one is damaged.

    Text around the blocks, and blocks of other labels, are passed over.
    """
    try:
        blocks = tuple(
            base64.b64decode(b"".join(body.split()), validate=True)
            for found, body in _BLOCK.findall(pem)
            if found.decode() == label
        )
    except binascii.Error:
        msg = f"a block {label} is not base64"
        raise ValueError(msg) from None
    if pem.count(f"-----BEGIN {label}-----".encode()) != len(blocks):
        msg = f"a block {label} has no end"
        raise ValueError(msg)
    return blocks


def _read(
    path: Path, *, most: int, error: type[SettingsError], is_ours: bool
) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as caught:
        what = f"{path} cannot be read"
        raise error(what, why=caught.strerror) from caught
    try:
        with os.fdopen(fd, "rb") as file:
            if is_ours:
                check_owned(path, os.fstat(fd), error=error)
            data = file.read(most + 1)
    except OSError as caught:  # a folder, for one
        what = f"{path} cannot be read"
        raise error(what, why=caught.strerror) from caught
    if len(data) > most:
        what = f"{path} is too long"
        raise error(what, why=f"expected {most} bytes at most")
    return data
