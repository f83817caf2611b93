"""``python -m aemesh`` and the ``aemesh`` command."""

from __future__ import annotations

import sys

# 128 + SIGINT, as in `aemesh.errors`; nothing of ours is loaded yet.
_INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        # Here, for Ctrl-C during the import is no reason for a traceback.
        from aemesh.cli.main import run  # noqa: PLC0415

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = _INTERRUPTED
    sys.exit(code)


if __name__ == "__main__":
    main()
