"""File < environment < command line, for every option, and what is never a default."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import click
import pytest

from aemesh.cli import main
from aemesh.cli.config import check_all, walk
from aemesh.cli.defaults import Section, settings_of, variable_of
from aemesh.cli.options import TypedOption
from aemesh.errors import SettingsFileError
from aemesh.host.settingsfile import SettingsFile, read_settings

if TYPE_CHECKING:
    from pathlib import Path

# They mean something else, to a script or to a job.
RESERVED = {"AEMESH_CONFIG", "AEMESH_GROUP", "AEMESH_JOB", "AEMESH_JOIN"}
COMMANDS = list(walk(main.cli))
SETTINGS = [
    (path, command, name, option)
    for path, command in COMMANDS
    for name, option in settings_of(command).items()
]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    path = folder / "config.toml"
    monkeypatch.setenv("AEMESH_CONFIG", str(path))
    return path


def _sample(option: click.Option) -> tuple[object, str]:
    """Return a value that the option takes, for TOML and as text."""
    if option.is_flag:
        return True, "true"
    if isinstance(option.type, click.Choice):
        return option.type.choices[-1], option.type.choices[-1]
    if isinstance(option.type, type(click.INT)):
        return 7, "7"
    word = (
        "7m" if "SPAN" in str(option.metavar) or option.type.name == "span" else "word"
    )
    return ([word], word) if option.multiple else (word, word)


def _toml(path: tuple[str, ...], name: str, value: object) -> str:
    shown = str(value).replace("'", '"') if value is not True else "true"
    if isinstance(value, str):
        shown = f'"{value}"'
    head = f"[{'.'.join(path)}]\n" if path else ""
    return f"{head}{name} = {shown}\n"


def _context(path: tuple[str, ...], command: click.Command, text: str) -> click.Context:
    context = click.Context(main.cli, info_name="aemesh")
    file = SettingsFile(read_settings().path, text)
    table = Section(main.cli, path, file)
    return command.make_context(
        path[-1], [], parent=context, default_map=table, resilient_parsing=True
    )


@pytest.mark.parametrize(
    ("path", "command", "name", "option"),
    [row for row in SETTINGS if row[0]],
    ids=lambda one: ".".join(one) if isinstance(one, tuple) else str(one)[:20],
)
def test_every_option_is_set_by_the_file_and_by_a_variable(
    monkeypatch: pytest.MonkeyPatch,
    path: tuple[str, ...],
    command: click.Command,
    name: str,
    option: click.Option,
):
    """Shows: A5."""
    value, text = _sample(option)
    source = click.core.ParameterSource

    context = _context(path, command, _toml(path, name, value))
    assert context.get_parameter_source(option.name) is source.DEFAULT_MAP
    from_file = context.params[option.name]

    monkeypatch.setenv(variable_of((*path, name)), text)
    context = _context(path, command, "")
    assert context.get_parameter_source(option.name) is source.ENVIRONMENT
    assert context.params[option.name] == from_file
    assert from_file is not None


def test_no_two_settings_have_one_variable():
    variables = [variable_of((*path, name)) for path, _, name, _ in SETTINGS]

    assert len(set(variables)) == len(variables)
    assert not RESERVED & set(variables)


def test_what_is_typed_goes_before_a_variable_and_that_before_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Shows: A5."""
    seen = []

    @click.command("probe")
    @click.option("--cores", type=int)
    def probe(cores: int | None) -> None:
        seen.append(cores)

    monkeypatch.setitem(main.COMMANDS, "probe", (__name__, "probe", "x"))
    monkeypatch.setattr(sys.modules[__name__], "probe", probe, raising=False)
    path.write_text("[probe]\ncores = 1\n")
    path.chmod(0o600)

    assert main.run(["probe"]) == 0
    monkeypatch.setenv("AEMESH_PROBE_CORES", "2")
    assert main.run(["probe"]) == 0
    assert main.run(["probe", "--cores", "3"]) == 0
    monkeypatch.setenv("AEMESH_PROBE_CORES", "many")
    assert main.run(["probe"]) == 2

    assert seen == [1, 2, 3]
    assert "'--cores' (from $AEMESH_PROBE_CORES): 'many'" in capfd.readouterr().err


TYPED = [
    (path, option)
    for path, command in COMMANDS
    for option in command.params
    if isinstance(option, TypedOption)
]


@pytest.mark.parametrize("role", ["worker", "master"])
def test_open_mode_is_refused_from_a_file_and_not_taken_from_the_environment(
    path: Path, monkeypatch: pytest.MonkeyPatch, role: str
):
    """Shows: T2.  Threat: 48."""
    text = f"[{role}]\ninsecure-open = true\n"
    file = SettingsFile(path, text)
    with pytest.raises(SettingsFileError, match=r":2: .*typed at each start"):
        check_all(main.cli, file)

    monkeypatch.setenv(f"AEMESH_{role.upper()}_INSECURE_OPEN", "1")
    command = dict(COMMANDS)[role,]
    assert _context((role,), command, "").params["insecure_open"] is False


@pytest.mark.parametrize(
    ("path", "option"),
    TYPED,
    ids=lambda one: ".".join(one) if isinstance(one, tuple) else one.name,
)
def test_what_is_no_default_is_refused_with_the_reason(
    path: tuple[str, ...], option: TypedOption
):
    name = max(option.opts, key=len).lstrip("-")
    file = SettingsFile(read_settings().path, f"[{'.'.join(path)}]\n{name} = true\n")

    with pytest.raises(SettingsFileError) as caught:
        check_all(main.cli, file)

    assert f":2: {'.'.join((*path, name))} cannot be set: {option.why}" in str(
        caught.value
    )
    assert option.envvar == ("AEMESH_JOIN" if option.secret else None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("worker = 4\n", ":1: worker is no table: expected [worker]"),
        (
            "[worker]\nport = true\n",
            ":2: worker.port is wrong: expected a whole number",
        ),
        ("[worker]\nport = 70000\n", ":2: worker.port is wrong: 70000 is not in the"),
        ("[worker]\nenrol = '7x'\n", ":2: worker.enrol is wrong: span of time"),
        ("[worker]\ngroup = [1]\n", "expected a list, each a text in quotes, got 1"),
        ("[worker]\nauth = 'no'\n", ":2: worker.auth is wrong: 'no' is not one of"),
        ("[trust.token]\nfor = '99d'\n", ":2: trust.token.for is wrong: a token for"),
        ("[group]\nadd = 1\n", ":2: add is no table: expected [group.add]"),
        ("[worker]\nhelp = true\n", ":2: unknown setting worker.help"),
    ],
)
def test_what_is_wrong_in_the_file_is_told_with_its_line(text: str, said: str):
    """Shows: A5."""
    with pytest.raises(SettingsFileError) as caught:
        check_all(main.cli, SettingsFile(read_settings().path, text))

    assert said in str(caught.value)


def test_help_is_shown_beside_a_file_that_is_wrong(
    path: Path, capfd: pytest.CaptureFixture[str]
):
    path.write_text("[worker]\nport = 'x'\n")
    path.chmod(0o600)

    for command in ("worker", "master", "config"):
        assert main.run([command, "--help"]) == 0
    assert "[default: leap]" in " ".join(capfd.readouterr().out.split())
    assert main.run(["trust", "list"]) == 0, "its own table is not wrong"


def test_a_home_folder_is_filled_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/u")
    command = dict(COMMANDS)["worker",]

    context = _context(("worker",), command, "[worker]\nx509 = '~/pki'\n")

    assert context.params["x509"] == "/home/u/pki"


def test_a_command_without_a_file_does_not_load_what_reads_it():
    code = (
        "import sys\n"
        "from aemesh.cli.main import run\n"
        "run(['config', 'path'])\n"
        "from aemesh.host.statedir import state_root\n"
        "state_root()\n"
        "print([m for m in ('tomllib', 'tomlkit') if m in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout.splitlines()[-1] == "[]"


def test_the_command_line_has_no_option_of_a_shape_that_a_file_cannot_say():
    odd = [
        (path, name)
        for path, _, name, option in SETTINGS
        if option.nargs != 1 or option.count or (option.is_flag and option.multiple)
    ]

    assert odd == []
