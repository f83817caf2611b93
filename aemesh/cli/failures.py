"""What came out of a command, told to a person; the exit code that it means."""

from __future__ import annotations

import importlib
from contextlib import suppress

from aemesh.cli import ui
from aemesh.errors import AemeshError, OutputError

INTERRUPTED = 130
# What a shell says of who was ended by SIGPIPE, as programs are that print.
READER_GONE = 128 + 13
# A failure of ours where all other codes tell of what was run, as ssh and GNU
# parallel have it.
ASIDE = 255


def failed(error: BaseException, *, as_json: bool, code: int | None = None) -> int:
    """Print what came out of a command; return its exit code.

    With `code` that is the one of all errors, whatever their own.
    """
    if isinstance(error, SystemExit):
        raise error
    if _has(error, ui.ReaderGoneError):
        return READER_GONE
    if _has(error, KeyboardInterrupt):
        with suppress(ui.ReaderGoneError, OutputError):
            ui.tell("")  # ends the line that has ^C, as click does
        return INTERRUPTED
    told = error if isinstance(error, AemeshError) else _inside(error)
    if told is None or told.exit_code == 1:
        return ui.bug(error, code=code)
    return ui.error(told, as_json=as_json, code=code)


def _inside(error: BaseException) -> AemeshError | None:
    blame = importlib.import_module("aemesh.tasks.blame")
    found = blame.blamed(error)
    assert found is None or isinstance(found, AemeshError)
    return found


def _has(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether this is it, or it is in a group, as trio's nurseries hand it out."""
    return isinstance(error, kind) or (
        isinstance(error, BaseExceptionGroup) and error.subgroup(kind) is not None
    )
