"""``aemesh exec``: one command on each member of a group, their output side by side."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import click
import msgspec

from aemesh.cli import ui
from aemesh.cli.delegation import delegate_options, wish_of
from aemesh.cli.options import group_option, json_option, state_option
from aemesh.client.mesh import Mesh
from aemesh.errors import GroupIncompleteError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aemesh.model.view import OutputView

# A line longer than this is shown in parts: no member fills our memory.
_LINE_BYTES = 64 * 1024
# The highest exit code there is, for a member whose own is not known.
_LOST = 255


# What stands behind the command's first word is the command's, with or without --.
@click.command("exec", context_settings={"allow_interspersed_args": False})
@group_option
@delegate_options
@click.argument("argv", nargs=-1, required=True, type=click.UNPROCESSED)
@state_option
@json_option
def exec_(  # noqa: PLR0913 - the options of the command
    group_name: str,
    delegate: str | None,
    delegate_from: str | None,
    argv: tuple[str, ...],
    state: str | None,
    *,
    as_json: bool,
) -> int:
    """Run a command on each member of a group.

    Each line is shown as `office-1: …`; the exit code is the worst of all members.
    """
    wish = wish_of(delegate, delegate_from)
    said = Mesh(state).exec(group_name, argv, delegate=wish)
    pieces = _some(said, group_name)
    return _as_json(pieces) if as_json else _as_lines(pieces)


def _some(pieces: Iterator[OutputView], group: str) -> Iterator[OutputView]:
    """Yield `pieces`; that nobody said anything, not even an exit, is an error."""
    first = next(pieces, None)
    if first is None:
        msg = f"group {group} has no members"
        raise GroupIncompleteError(msg)
    yield first
    yield from pieces


def _as_json(pieces: Iterable[OutputView]) -> int:
    worst = 0
    for piece in pieces:
        ui.write_json(msgspec.to_builtins(piece))
        worst = max(worst, _exit_code(piece))
    return worst


def _as_lines(pieces: Iterable[OutputView]) -> int:
    worst = 0
    parts: dict[tuple[str, str], bytes] = {}
    for piece in pieces:
        if piece.code is None:
            _show(piece, parts)
            continue
        for worker, channel in [at for at in parts if at[0] == piece.worker]:
            rest = parts.pop((worker, channel))
            if rest:
                _write(worker, channel, rest)
        if piece.code or piece.reason:
            why = f" ({piece.reason})" if piece.reason else ""
            ui.say(f"{piece.worker}: exit code {piece.code}{why}")
        worst = max(worst, _exit_code(piece))
    return worst


def _exit_code(piece: OutputView) -> int:
    """Return a code that a shell does not take for another one.

    A member that was lost has -1, which would be better than all; 256 would be 0.
    """
    code = piece.code or 0
    return code if 0 <= code <= _LOST else _LOST


def _show(piece: OutputView, parts: dict[tuple[str, str], bytes]) -> None:
    """Show the whole lines of a piece; keep the rest until its end comes."""
    at = (piece.worker, piece.channel)
    try:
        data = parts.get(at, b"") + base64.b64decode(piece.data)
    except binascii.Error:
        return
    *lines, rest = data.split(b"\n")
    for line in lines:
        _write(*at, line)
    if len(rest) > _LINE_BYTES:
        _write(*at, rest)
        rest = b""
    parts[at] = rest


def _write(worker: str, channel: str, line: bytes) -> None:
    # Tabs are no danger to a terminal, and columns want them.
    text = "\t".join(
        ui.plain(part) for part in line.decode(errors="replace").split("\t")
    )
    shown = f"{ui.plain(worker)}: {text}"
    if channel == "stderr":
        ui.tell(shown)
    else:
        ui.write(shown)
