"""What mpirun needs on each member is looked for before it starts.

It would find out by itself, host by host and in words of its own: MPICH's launcher says
no more than "assert (!closed) failed" where the working folder is missing.
"""

from __future__ import annotations

import base64
import os
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from aemesh.client.mpilauncher import Kind
from aemesh.errors import EngineError, GroupIncompleteError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aemesh.client.mesh import Mesh
    from aemesh.client.mpilauncher import Launcher
    from aemesh.model.view import HeldMember

# The names of what is missing, one a line.
_LOOK = """
command -v "$1" >/dev/null || echo daemon
[ -d "$2" ] || echo folder
[ -z "$3" ] || [ -e "$3" ] || echo file
[ -z "$4" ] || if command -v ip >/dev/null; then
    [ -n "$(ip -o addr show to "$4" 2>/dev/null)" ] || echo network
else echo ip; fi
"""
# Options of either mpirun that say where ranks start.
_PLACES = frozenset(("-wdir", "--wdir", "-wd", "--wd", "-cwd", "--cwd"))
# Those with one dash or two whose value is a file that mpirun itself reads or writes.
_FILES = frozenset((
    *("f", "hostfile", "machinefile", "default-hostfile", "rankfile", "rf", "app"),
    *("am", "tune", "configfile", "output-filename", "report-pid", "report-uri"),
    *("outfile-pattern", "errfile-pattern"),
))  # fmt: skip


def check_members(  # noqa: PLR0913 - what is looked for, and where
    mesh: Mesh,
    group: str,
    members: Sequence[HeldMember],
    launcher: Launcher,
    words: Sequence[str],
    *,
    subnet: str,
    named: bool,
) -> list[str]:
    """Raise `SettingsError` for what is missing on a member; return what may be.

    `subnet` is the network that ranks are to use, "" for any; the user `named` it.
    Raises `GroupIncompleteError` if there is no member.
    """
    if not members:
        msg = f"group {group} has no members"
        raise GroupIncompleteError(msg)
    program, is_sure = _program(words)
    place = str(Path.cwd())
    path = str(Path(place, program)) if program else ""
    argv = ["/bin/sh", "-c", _LOOK, "sh", launcher.daemon, place, path, subnet]
    missing = _looked(mesh, group, [one.label for one in members], argv)
    if lacks := missing.get("daemon"):
        msg = f"{launcher.daemon} is not on {', '.join(lacks)}"
        hint = f"install {launcher.kind.value} there, of the same version: {launcher}"
        raise SettingsError(msg, why="mpirun starts it on each member", hint=hint)
    warnings = _check_network(launcher, subnet, missing, named=named)
    told = not _PLACES.isdisjoint(words)
    # Open MPI's ranks go to the home folder else, which does for a whole path.
    here = launcher.kind is Kind.MPICH or (program and not program.startswith("/"))
    if (lacks := missing.get("folder")) and here and not told:
        msg = f"the folder {place} is not on {', '.join(lacks)}"
        hint = "call it from a folder that all have, or say one: `-wdir /tmp`"
        raise SettingsError(msg, why="ranks start there", hint=hint)
    if (lacks := missing.get("file")) and not told:
        msg = f"{path} is not on {', '.join(lacks)}"
        if not is_sure:
            return [*warnings, msg]
        hint = f"copy it there: `rsync -e 'aemesh rsh' {program} {lacks[0]}:{path}`"
        raise SettingsError(msg, why="ranks start it at the same path", hint=hint)
    return warnings


def _check_network(
    launcher: Launcher, subnet: str, missing: dict[str, list[str]], *, named: bool
) -> list[str]:
    """Raise `SettingsError` where ranks would use another network than the named one.

    Returns that as warnings where nobody has named it.
    """
    if lacks := missing.get("network"):
        what = f"{subnet} is no network of {', '.join(lacks)}"
        why = "ranks are to use it on each member"
    elif launcher.kind is Kind.MPICH and (lacks := missing.get("ip")):
        what = f"`ip` is not on {', '.join(lacks)}"
        why = f"MPICH is to use {subnet}, and `ip` says which interface that is there"
    else:
        return []
    if not named:
        return [f"{what}: {why}"]
    hint = "name a network that all members are in, or none: `--subnet any`"
    raise SettingsError(what, why=why, hint=hint)


def _looked(
    mesh: Mesh, group: str, labels: Sequence[str], argv: Sequence[str]
) -> dict[str, list[str]]:
    """Return which members lack what, as they themselves see it."""
    said: dict[str, bytes] = {}
    for piece in mesh.exec(group, argv, workers=labels):
        if piece.channel == "stdout":
            data = base64.b64decode(piece.data)
            said[piece.worker] = said.get(piece.worker, b"") + data
        elif piece.code:
            msg = f"{piece.worker} runs no command"
            raise EngineError(msg, why=piece.reason or f"exit code {piece.code}")
    missing: dict[str, list[str]] = {}
    for worker, lines in sorted(said.items()):
        for what in lines.decode(errors="replace").split():
            missing.setdefault(what, []).append(worker)
    return missing


def _program(words: Sequence[str]) -> tuple[str, bool]:
    """Return the file among mpirun's words that ranks run, and whether it is one.

    What each option of mpirun takes is mpirun's to know.  So it is the first word that
    is a path and names a file here, and none of mpirun's own: a program, or a script
    of an interpreter's.
    Without any it may be what looks like one in this folder, mistyped.
    """
    mistyped = ""
    for before, word in pairwise(("", *words)):
        if before.startswith("-") and before.lstrip("-") in _FILES:
            continue
        is_script = word.endswith(".py")
        if not word.startswith("-") and ("/" in word or is_script):
            path = Path(word)
            if path.is_file():
                return word, is_script or os.access(path, os.X_OK)
            if not mistyped and word.startswith(("./", "../")) and not path.exists():
                mistyped = word
    return mistyped, False
