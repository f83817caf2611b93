"""Trust files as lines: read with suspicion, changed whole under a lock.

The agent and the command line change these files at the same time.  So each change
takes the lock, reads the file again, checks against what it finds there, and puts
a whole new file in place: no line is lost, none is cut in half (threat 32).
A change waits for the lock, milliseconds; nothing here is async.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, TypeVar

from aemesh import limits
from aemesh.errors import TrustFileError
from aemesh.host.folders import check_folder, check_owned
from aemesh.host.trust.trustlines import RefusedLineError
from aemesh.host.wholefile import locked, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Change = Callable[[list[str]], list[str] | None]

_Entry = TypeVar("_Entry")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a trust file that only we could have written."""
    check_folder(path.parent, error=TrustFileError)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return []
    with os.fdopen(fd, "rb") as file:
        check_owned(path, os.fstat(fd), error=TrustFileError)
        data = file.read(limits.TRUST_FILE_BYTES + 1)
    if len(data) > limits.TRUST_FILE_BYTES:
        what = f"{path} is too long"
        raise TrustFileError(what, why=f"expected {limits.TRUST_FILE_BYTES} bytes")
    return split_lines(data)


def split_lines(data: bytes) -> list[str]:
    r"""Return the lines of a trust file's bytes.

    Split at "\n" only: what Unicode calls a line break is not one to OpenSSH.
    Bytes that are no UTF-8 make their line void, and are written back as they were.
    """
    lines = data.decode(errors="surrogateescape").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def change_lines(path: Path, change: Change) -> bool:
    """Put what `change` makes of the lines in place, under the lock.

    Returns False, and writes nothing, where it makes None of them.
    """
    check_folder(path.parent, error=TrustFileError)
    with locked(path.with_name(f".{path.name}.lock")):
        lines = change(read_lines(path))
        if lines is None:
            return False
        text = "".join(f"{line}\n" for line in lines)
        write_whole(path, text.encode(errors="surrogateescape"))
    return True


def entries(
    path: Path, lines: Sequence[str], parse: Callable[[str, int], _Entry | None]
) -> Iterator[_Entry]:
    """Return what the lines say, as `parse` reads each; silent ones are left out."""
    for number, text in enumerate(lines, 1):
        entry = parse_at(path, text, number, parse)
        if entry is not None:
            yield entry


def parse_at(
    path: Path, text: str, number: int, parse: Callable[[str, int], _Entry]
) -> _Entry:
    """Return what one line says; raise `TrustFileError` if it refuses the file."""
    try:
        return parse(text, number)
    except RefusedLineError as error:
        what = f"{path}:{number} cannot be read"
        hint = f"edit line {number} of {path}"
        raise TrustFileError(what, why=str(error), hint=hint) from None
