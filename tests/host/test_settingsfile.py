"""The file of defaults: who may have written it, and in which line what stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import SettingsFileError
from aemesh.host.settingsfile import SettingsFile, default_state, read_settings
from aemesh.host.statedir import state_root

TEXT = """\
# mine

state = "~/aemesh"
worker.verbose = true

[worker.deep]
list = [
    "a",  # ]

    "b",
]
text = '''
[no.table]
x = 1
'''
[master] # head
cores = 4
"a b" = { c = 1 }
[[rows]]
one = 1
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    folder.mkdir(mode=0o700)
    path = folder / "config.toml"
    monkeypatch.setenv("AEMESH_CONFIG", str(path))
    return path


def _write(path: Path, text: str | bytes, *, mode: int = 0o600) -> None:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ("state", 3),
        ("worker", 4),
        ("worker.verbose", 4),
        ("worker.deep", 6),
        ("worker.deep.list", 7),
        ("worker.deep.text", 12),
        ("master", 16),
        ("master.cores", 17),
        ("master.a b", 18),
        ("master.a b.c", 18),
        ("rows", 19),
    ],
)
def test_each_name_is_in_its_line(keys: str, line: int):
    file = SettingsFile(Path("x"), TEXT)

    assert file.line_of(tuple(keys.split("."))) == line


_NAME = st.text("abc-_", min_size=1, max_size=6)
_VALUE = st.sampled_from(['"x"', "4", "true", '[\n "a",\n # ]\n "b"]', '"""\n[x]\n"""'])


@given(st.dictionaries(_NAME, st.dictionaries(_NAME, _VALUE, max_size=4), max_size=4))
def test_the_line_of_a_setting_begins_with_its_name(tables: dict):
    text = "".join(
        f"\n# {name}\n[{name}]\n" + "".join(f"{k} = {v}\n" for k, v in table.items())
        for name, table in tables.items()
    )
    file, lines = SettingsFile(Path("x"), text), text.split("\n")

    assert set(file.values) == set(tables)
    for name, table in tables.items():
        assert lines[file.line_of((name,)) - 1] == f"[{name}]"
        for key in table:
            assert lines[file.line_of((name, key)) - 1].startswith(f"{key} = ")


def test_no_file_and_none_that_is_a_file_are_no_settings(
    path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert read_settings().values == {}
    monkeypatch.setenv("AEMESH_CONFIG", os.devnull)
    assert read_settings().values == {}


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(path: Path, mode: int):
    """Shows: A5."""
    _write(path, "state = '/elsewhere'\n", mode=mode)

    with pytest.raises(SettingsFileError, match="others can write it") as caught:
        state_root()

    assert caught.value.exit_code == 3
    assert caught.value.hint == f"chmod go-w {path}"


def test_a_file_in_a_folder_that_others_can_write_is_refused(path: Path):
    _write(path, "")
    path.parent.chmod(0o777)

    with pytest.raises(SettingsFileError, match="others can write it"):
        read_settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\nb = \n", ":2: this is no TOML: Invalid value"),
        ("a = 1\na = 2\n", ":2: this is no TOML: Cannot overwrite a value"),
        ("\n\nx = [", ":3: this is no TOML: Invalid value"),
        (b"\n\xff = 1\n", ":2: this is no UTF-8"),
        ("x = " + 40_000 * "[", "this is no TOML"),
        ("#" * 70_000, "is too long: at most 65536 bytes are read"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(path: Path, text, said: str):
    _write(path, text)

    with pytest.raises(SettingsFileError, match=said):
        _ = read_settings().values


def test_the_state_folder_is_the_first_that_is_said(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _write(path, f"state = '{tmp_path}/file'\n")

    assert state_root() == tmp_path / "file"
    monkeypatch.setenv("AEMESH_STATE", f"{tmp_path}/variable")
    assert state_root() == tmp_path / "variable"
    assert state_root(tmp_path / "given") == tmp_path / "given"


def test_a_state_folder_that_is_no_text_is_told_with_its_line(path: Path):
    _write(path, "\nstate = 4\n")

    with pytest.raises(SettingsFileError, match=r":2: state is not a text: it is 4"):
        default_state()
