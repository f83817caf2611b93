"""The one place that prints.

Rules: data goes to stdout, all else to stderr; with ``--json`` data is one object
a line; colour says nothing that words do not say, and ``NO_COLOR`` is honoured;
questions are asked on a terminal only, one at a time, and "No" is the default.
Text that may come from elsewhere is shown with its control characters as escapes.
rich, trio and their like are imported where they are used, for each command pays
for its imports at each call.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aemesh.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import TextIO

    import trio

    from aemesh.errors import AemeshError

REPORT_AT = "https://github.com/aemesh/aemesh/issues"

# One line as a person types it; a terminal hands over no more than 4096 at once.
_ANSWER_BYTES = 4096


# --- where it goes ----------------------------------------------------------


class ReaderGoneError(Exception):
    """Whoever read our output has seen enough, as `head` has; no more is to be said."""


@contextmanager
def writing(stream: TextIO) -> Iterator[None]:
    """Raise `ReaderGoneError` or `OutputError` if what is written is not taken."""
    try:
        yield
    except OSError as error:
        # What it still holds would be written at our exit, in vain once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            raise ReaderGoneError from None
        named = "standard output" if stream is sys.stdout else "standard error"
        raise OutputError(named, error) from error


# --- data -------------------------------------------------------------------


def plain(text: str) -> str:
    """Return `text` with whatever could steer a terminal as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def write(text: str) -> None:
    """Print one line of data."""
    with writing(sys.stdout):
        print(text, flush=True)


def write_json(value: object) -> None:
    """Print one object, on one line, keys in the order that they were given."""
    write(_one_line(value))


def pass_on(data: bytes, *, error: bool = False) -> None:
    """Print bytes of a program as they are; on a terminal as text that steers nothing.

    With `error` to stderr.
    """
    stream = sys.stderr if error else sys.stdout
    with writing(stream):
        if stream.isatty():
            lines = data.decode(errors="replace").split("\n")
            # Tabs are no danger to a terminal, and columns want them.
            shown = ("\t".join(map(plain, line.split("\t"))) for line in lines)
            stream.write("\n".join(shown))
        else:
            stream.buffer.write(data)
        stream.flush()


def _one_line(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def fields(shown: Mapping[str, str]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        write(f"{name.ljust(width)}  {plain(value)}".rstrip())


def records(shown: Iterable[Mapping[str, str]], *, as_json: bool) -> None:
    """Print records as JSON lines, or as blocks of fields with blank lines between."""
    for number, one in enumerate(shown):
        if as_json:
            write_json(one)
            continue
        if number:
            write("")
        fields(one)


def moment(at: float) -> str:
    """Return seconds since 1970 as local time."""
    return datetime.fromtimestamp(at, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def memory(size: int) -> str:
    """Return a number of bytes in GiB."""
    return f"{size / 2**30:.1f} GiB"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table: columns padded by spaces, bold heads where colour may be used."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _rich_table(heads, cells)
        return
    lines = [list(heads), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
    for line in lines:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        write("  ".join(padded).rstrip())


def _rich_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        drawn.add_column(head, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(drawn)


# --- what goes on -----------------------------------------------------------


def tell(text: str) -> None:
    """Print text of ours to stderr, as it is; an open question stays last."""
    with writing(sys.stderr):
        if _open_question is None:
            print(text, file=sys.stderr, flush=True)
        else:
            print(f"\n{text}\n{_open_question}", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print one line for the person, beside the data."""
    tell(plain(text))


def warn(text: str) -> None:
    """Print one warning; only for what the person can act upon."""
    say(f"aemesh: warning: {text}")


def alarm(text: str) -> None:
    """Print a warning that has several lines, each as it is."""
    first = "aemesh: warning:" + ("\n" if "\n" in text else " ")
    tell("\n".join(plain(line) for line in (first + text).split("\n")))


# --- errors -----------------------------------------------------------------


def error(told: AemeshError, *, as_json: bool = False, code: int | None = None) -> int:
    """Print an error and its hint; return the exit code: `code`, or else its own."""
    code = code or told.exit_code
    if as_json:
        _last_words(_one_line({**told.fields(), "exit_code": code}))
        return code
    lines = [f"aemesh: error: {plain(str(told))}"]
    if told.hint is not None:
        lines.append(f"aemesh: hint: {plain(told.hint)}")
    _last_words("\n".join(lines))
    return code


def bug(broken: BaseException, *, code: int | None = None) -> int:
    """Print the traceback of a bug of ours, and where to report it; return the code."""
    import traceback  # noqa: PLC0415

    said = plain(str(broken)) or type(broken).__name__
    _last_words(
        "".join(traceback.format_exception(broken))
        + f"aemesh: error: a bug of ours: {said}\n"
        f"aemesh: hint: please report the lines above at {REPORT_AT}"
    )
    return code or 1


def _last_words(text: str) -> None:
    """Print why we end; where that cannot be, the exit code alone says it."""
    with suppress(ReaderGoneError, OutputError), writing(sys.stderr):
        print(text, file=sys.stderr, flush=True)


# --- questions --------------------------------------------------------------

_open_question: str | None = None
_turn: trio.Lock | None = None
_asking: trio.CancelScope | None = None
_asks_no_more = False


def can_ask() -> bool:
    """Whether somebody is there to answer: a terminal, and we in its foreground.

    Reading from the background would stop the whole process (SIGTTIN).
    """
    try:
        fd = sys.stdin.fileno()
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            return False
        return os.tcgetpgrp(fd) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # closed, or not a file at all
        return False


async def ask(question: str) -> bool:
    """Ask a yes-or-no question on the terminal; anything but "yes" is No.

    It may be cancelled while it waits; a second caller waits until the first has
    its answer.  Without a terminal the answer is No, at once; after `stop_asking`
    there is none.
    """
    # One terminal a process, one question at a time.
    global _turn, _asking  # noqa: PLW0603
    import trio  # noqa: PLC0415

    if not can_ask():
        return False
    if _turn is None:
        _turn = trio.Lock()
    async with _turn:
        if not _asks_no_more:
            with trio.CancelScope() as _asking:
                return await _ask_here(f"{plain(question)} [y/N] ")
        # Silence is no answer: nobody is declined by it.
        return await trio.sleep_forever()


def ask_secret(question: str) -> str | None:
    """Ask for one line that is not shown; None without a terminal to ask on."""
    import getpass  # noqa: PLC0415

    if not can_ask():
        return None
    try:
        return getpass.getpass(f"{plain(question)}: ")
    except EOFError:
        return None


def stop_asking() -> None:
    """Withdraw the open question and ask no other; who asks waits to be cancelled."""
    global _asks_no_more, _open_question  # noqa: PLW0603 - see `ask`
    _asks_no_more = True
    if _open_question is not None:
        _open_question = None
        print(file=sys.stderr, flush=True)
    if _asking is not None:
        _asking.cancel()


async def _ask_here(shown: str) -> bool:
    global _open_question  # noqa: PLW0603 - so that `say` can repeat it
    import termios  # noqa: PLC0415

    import trio  # noqa: PLC0415

    fd = sys.stdin.fileno()
    # What was typed before the question was seen is no answer to it.
    termios.tcflush(fd, termios.TCIFLUSH)
    _open_question = shown
    print(shown, end="", file=sys.stderr, flush=True)
    answered = False
    try:
        # The terminal hands over whole lines, so that a read after it has become
        # readable does not wait; O_NONBLOCK would change it for our shell too.
        await trio.lowlevel.wait_readable(fd)
        answer = os.read(fd, _ANSWER_BYTES)
        answered = answer.endswith(b"\n")
    finally:
        withdrawn, _open_question = _open_question is None, None
        if not answered and not withdrawn:
            print(file=sys.stderr, flush=True)
    return answer.split(b"\n")[0].strip().lower() in {b"y", b"yes"}
