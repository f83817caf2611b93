"""``--join``: how a worker gets its join token, and what else could see it.

What stands on a command line, any user of the machine reads in ``ps`` while the worker
runs.  So there are three other ways: a private file, standard input, and the
environment, which only the same user reads.  The variable is removed at once, so that
no job inherits it.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from aemesh import limits
from aemesh.cli.options import JOIN_VARIABLE
from aemesh.cli.settings import typed
from aemesh.errors import SettingsError, UsageError
from aemesh.model.jointoken import JoinToken

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def read_join(given: str | None) -> JoinToken | None:
    """Return the token of ``--join``, else of $AEMESH_JOIN, else None.

    The variable is gone from the environment afterwards, in any case.  Raises
    `UsageError` for what is no token, `SettingsError` for a file that others can read.
    """
    inherited = os.environ.pop(JOIN_VARIABLE, None)
    if given is None:
        return _token(inherited) if inherited else None
    if given == "-":
        return _token(_from_input())
    if given.startswith("@"):
        return _token(_from_file(Path(given[1:]).expanduser()))
    return _token(given)


def _token(text: str) -> JoinToken:
    with typed():
        return JoinToken.parse_untrusted(text)


def _from_input() -> str:
    line = sys.stdin.readline(limits.JOIN_LINE_BYTES)
    if not line.strip():
        msg = "--join - reads the token from standard input, and there is none"
        raise UsageError(msg)
    return line


def _from_file(path: Path) -> str:
    """Return the first line of a file that only we can read.

    A file that others read is refused, as a key is: it may have been read already.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            line = file.readline(limits.JOIN_LINE_BYTES)
    except OSError as error:
        msg = f"the join token's file {path} cannot be read"
        raise SettingsError(msg, why=error.strerror) from error
    if mode & _OTHERS:
        msg = f"the join token's file {path} is open to others"
        why = f"its mode is {mode:04o}, expected 0600"
        raise SettingsError(msg, why=why, hint=f"chmod 600 {path}")
    return line.decode(errors="replace")
