"""What a sandbox hides, and what of Python it shows again where that was hidden."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

import aemesh
from aemesh.errors import SettingsError
from aemesh.host import sandboxview
from aemesh.host.sandboxview import View, find_view, links_to, name_services


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a state folder, and nothing of Python in it yet."""
    home = tmp_path / "home"
    (home / "state").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    return home


def python_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the running Python be an environment in this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(sys, "prefix", str(folder))
    return folder


def known_as(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system have this folder as the owner's home."""
    entry = pwd.struct_passwd(("u", "x", os.getuid(), 0, "", str(folder), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: entry)


def test_home_is_hidden_as_named_and_as_the_system_has_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Threat: 85; a batch system may set another HOME."""
    known = home.parent / "known"
    known.mkdir()
    known_as(known, monkeypatch)
    hidden = find_view(state=home / "state").hidden
    assert {home, known, home / "state", Path("/run").resolve()} <= set(hidden)
    assert list(hidden) == sorted(hidden)  # else a home would cover its state's folder
    monkeypatch.setenv("HOME", "/nonexistent")
    assert known in find_view(state=home / "state").hidden


@pytest.mark.parametrize("named", ["/", "/nonexistent"])
def test_a_home_that_cannot_be_hidden_is_refused(
    home: Path, named: str, monkeypatch: pytest.MonkeyPatch
):
    """Threat: 85."""
    known_as(Path("/nonexistent"), monkeypatch)
    monkeypatch.setenv("HOME", named)
    with pytest.raises(SettingsError, match="home") as caught:
        find_view(state=home / "state")
    assert "HOME" in (caught.value.hint or "")


def test_where_an_agent_was_started_is_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """`python -m aemesh` puts that folder on its path. Shows: E5. Threat: 85."""
    documents, keys = home / "Documents", home / "state" / "worker"
    for folder in (documents, keys):
        folder.mkdir()
    started = [str(one) for one in (home, home.parent, documents, keys, "/tmp", "/run")]
    monkeypatch.setattr(sys, "path", [*started, *sys.path])
    view = find_view(state=home / "state")
    options = view.options(room=home / "state" / "run" / "jobs" / "one")
    assert not {*started, str(home.resolve())} & set(view.shown)
    assert str(documents) not in options
    assert str(keys) not in options


def test_an_environment_in_a_hidden_folder_is_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    python = python_at(home / "venv", monkeypatch)
    assert python in find_view(state=home / "state").shown


@pytest.mark.parametrize(
    "place", [".", ".local", ".local/state", ".local/state/x", "/tmp"]
)
def test_python_in_a_place_that_shows_secrets_is_refused(
    home: Path, place: str, monkeypatch: pytest.MonkeyPatch
):
    """As with a Python that was installed into ~/.local. Threat: 85."""
    state = home / ".local" / "state"
    state.mkdir(parents=True)
    python = python_at((home / place).resolve(), monkeypatch)
    with pytest.raises(SettingsError, match=f"Python needs {python}"):
        find_view(state=state)


def test_of_a_checkout_in_home_only_the_package_is_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Home itself may be the checkout. Threat: 85."""
    package = home / "aemesh"
    package.mkdir()
    monkeypatch.setattr(aemesh, "__file__", str(package / "__init__.py"))
    shown = find_view(state=home / "state").shown
    assert [one for one in shown if one.is_relative_to(home)] == [package]


def test_links_in_a_hidden_home_lead_to_python_and_to_the_job(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """Homes with a quota have links to other disks in them."""
    disk = home.parent / "disk"
    for name in ("state", "python-3.11.9"):
        (disk / name).mkdir(parents=True)
    (home / "envs").symlink_to(disk)
    (disk / "python").symlink_to("python-3.11.9")
    (home / "linked").symlink_to(disk / "state")
    python_at(home / "envs" / "python", monkeypatch)
    view = find_view(state=home / "linked")
    assert dict(view.links).items() >= {(home / "envs", str(disk))}
    assert disk / "state" in view.hidden
    options = view.options(room=home / "linked" / "jobs" / "one")
    at = options.index(str(home / "linked"))
    assert options[at - 2 : at] == ["--symlink", str(disk / "state")]


def test_links_in_a_ring_are_each_found_once(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    found = links_to(tmp_path / "a").items()
    assert found >= {(tmp_path / "a", "b"), (tmp_path / "b", str(tmp_path / "a"))}


def test_the_resolvers_file_is_shown_where_its_first_link_points(
    home: Path, monkeypatch: pytest.MonkeyPatch
):
    """/etc/resolv.conf is a link into /run on most machines, some with a second one."""
    run = home / "run"
    run.mkdir()
    (run / "real").write_text("nameserver 127.0.0.53")
    (run / "resolv.conf").symlink_to("real")
    (home / "etc").symlink_to(run)
    monkeypatch.setattr(sandboxview, "_RESOLVER", home / "resolver")
    assert name_services([home]) == []
    (home / "resolver").symlink_to("etc/resolv.conf")
    assert name_services([home]) == [(run / "real", run / "resolv.conf")]
    words = View((home,)).options(room=home / "one")
    assert words[-3:] == ["--ro-bind-try", str(run / "real"), str(run / "resolv.conf")]
