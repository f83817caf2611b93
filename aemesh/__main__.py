"""``python -m aemesh`` and the ``aemesh`` command."""

from __future__ import annotations

import os
import sys

# 128 + SIGINT, as in `aemesh.errors`; nothing of ours is loaded yet.
_INTERRUPTED = 130
_STANDARD = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        _fill_standard_files()
        # Here, for Ctrl-C during the import is no reason for a traceback.
        from aemesh.cli.main import run  # noqa: PLC0415

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = _INTERRUPTED
    sys.exit(code)


def _fill_standard_files() -> None:
    """Put an empty file where standard input, output or error is closed, as sshd does.

    The next file to be opened would have its number: the socket to the master, which
    whoever reads or writes 0, 1 and 2 would then read and write.
    """
    for fd, (name, mode) in enumerate(_STANDARD):
        try:
            os.fstat(fd)
        except OSError:
            # The lowest number that is free is this one; programs of ours have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(fd, mode, closefd=False))  # noqa: SIM115


if __name__ == "__main__":
    main()
