"""What a job in a sandbox sees of this machine: what is hidden, what is shown again.

Hidden are folders with something of the owner's in them: home, the node's state, what
is temporary, and ``/run``, where the sockets of a session are.  Shown again is what
Python is made of, where that lies within something hidden: the environment, what it
was made from, its site-packages, the package aemesh.  Not all of ``sys.path``: the
folder that an agent was started in is on it, and so is what PYTHONPATH names.

A mount cannot be made upon a symbolic link.  So folders are named by their real paths,
and the links that lead to them are made again where they were hidden, too.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import site
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import aemesh
from aemesh.errors import SettingsError
from aemesh.host.mounts import other_places, read_mounts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_ROOT = Path("/")
_TEMPORARY = ("/tmp", "/var/tmp", "/run", "/var/run")  # noqa: S108 - to hide them
_RESOLVER = Path("/etc/resolv.conf")
# What glibc asks for a host's address; there on some machines, and read-only.
_NAME_SERVICES = ("/run/nscd", "/run/systemd/resolve")


@dataclass(frozen=True, slots=True)
class View:
    """What is laid upon the machine as it is; real paths, outer folders first."""

    hidden: tuple[Path, ...]
    shown: tuple[Path, ...] = ()
    links: tuple[tuple[Path, str], ...] = ()  # where each is, and what it says

    def options(self, *, room: Path) -> list[str]:
        """Return bwrap's options for all but the job's own folder, upon ``/``."""
        links = dict((*self.links, *_lost_links([room], self.hidden, self.shown)))
        words: list[str] = []
        for folder in self.hidden:
            words += ["--tmpfs", str(folder)]
        for place, text in links.items():
            words += ["--symlink", text, str(place)]
        for source, place in name_services(self.hidden):
            words += ["--ro-bind-try", str(source), str(place)]
        for folder in self.shown:
            words += ["--ro-bind", str(folder), str(folder)]
        return words

    def hides(self, path: Path, *, room: Path) -> bool:
        """Whether a job in this folder does not see what there may be at a path.

        A link that is hidden leads nowhere, wherever it led.
        """
        seen = (*self.shown, room.resolve())
        links = dict(self.links)
        ways = {path.resolve(), path.parent.resolve() / path.name}
        return any(
            _is_within(way, self.hidden)
            and not _is_within(way, seen)
            and way not in links
            for way in ways
        )


def find_view(*, state: Path) -> View:
    """Return what is to be seen beside a node's state, which is there already.

    Raises `SettingsError` if something cannot be hidden, or only with Python.
    """
    private = {path.resolve() for path in (*_homes(), state) if path.is_dir()}
    mounts = read_mounts()
    elsewhere = (place for path in private for place in other_places(path, mounts))
    temporary = {Path(name).resolve() for name in _TEMPORARY if Path(name).is_dir()}
    hidden = tuple(sorted({*private, *elsewhere, *temporary}))
    if _ROOT in hidden:
        msg = "--sandbox bwrap: home, or the state's folder, is /, which holds all else"
        raise SettingsError(msg, hint="give them folders of their own: HOME, --state")
    python = _python_folders()
    shown = _to_show(python, hidden, state=state.resolve())
    wanted = [*python, Path(sys.executable)]
    return View(hidden, shown, tuple(_lost_links(wanted, hidden, shown)))


def name_services(hidden: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Return what name resolution needs of what is hidden, each with its place.

    Looked up for each job: who manages the network exchanges ``resolv.conf``.
    """
    found = [(Path(name), Path(name)) for name in _NAME_SERVICES]
    if _RESOLVER.is_symlink():
        first = _RESOLVER.parent / os.readlink(_RESOLVER)
        found.append((_RESOLVER.resolve(), first.parent.resolve() / first.name))
    return [pair for pair in found if _is_within(pair[1], hidden)]


def links_to(path: Path) -> dict[Path, str]:
    """Return all symbolic links on the way to a path: real place, and what it says."""
    found: dict[Path, str] = {}
    waiting = [path.absolute()]
    while waiting:
        last = waiting.pop()
        for one in (last, *last.parents):
            place = one.parent.resolve() / one.name
            if one.is_symlink() and place not in found:
                found[place] = os.readlink(one)
                waiting.append(one.parent / found[place])
    return found


def _lost_links(
    wanted: Iterable[Path], hidden: Sequence[Path], shown: Sequence[Path]
) -> list[tuple[Path, str]]:
    """Return the links to what is wanted that are hidden, and not shown again."""
    links = [pair for path in wanted for pair in links_to(path).items()]
    return [
        (place, text)
        for place, text in links
        if _is_within(place, hidden) and not _is_within(place, shown)
    ]


def _homes() -> list[Path]:
    """Return the owner's home as the environment has it, and as the system has it.

    They differ under some batch systems; either may have keys in it.
    """
    named = [Path.home()]
    with contextlib.suppress(KeyError):  # a container may know no names
        named.append(Path(pwd.getpwuid(os.getuid()).pw_dir))
    homes = [path for path in named if path.is_dir()]
    if not homes:
        msg = f"--sandbox bwrap: there is no home to hide: no folder {named[0]}"
        raise SettingsError(msg, hint="set HOME to the folder with your files")
    return homes


def _python_folders() -> list[Path]:
    named = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    named += site.getsitepackages()
    if site.ENABLE_USER_SITE:
        named.append(site.getusersitepackages())
    # Of a checkout the package alone: beside it may be anything.
    folders = [*(Path(text) for text in named), Path(aemesh.__file__).parent]
    return [folder for folder in folders if folder.is_dir()]


def _to_show(
    folders: Iterable[Path], hidden: Sequence[Path], *, state: Path
) -> tuple[Path, ...]:
    """Return those that would be hidden; refuse what would show anything else again."""
    shown: list[Path] = []
    real = {folder.resolve() for folder in folders}
    for folder in sorted(one for one in real if _is_within(one, hidden)):
        holds = [one for one in hidden if one.is_relative_to(folder)]
        if holds or folder.is_relative_to(state):
            msg = f"--sandbox bwrap: Python needs {folder}, which is to be hidden"
            why = f"{holds[0] if holds else state} cannot be seen by jobs"
            raise SettingsError(msg, why=why, hint="use an environment elsewhere")
        if not _is_within(folder, shown):
            shown.append(folder)
    return tuple(shown)


def _is_within(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)
