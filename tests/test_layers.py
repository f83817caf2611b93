"""The house's contracts hold, and each of them notices who breaks it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"][
        "importlinter"
    ]["contracts"]
}

# Deliberate breaches: the contract, a file of the house, and a line for its end.
BREACHES = [
    ("layers", "model/key.py", "import aemesh.protocol.wire"),
    ("layers", "worker/worker.py", "import aemesh.master.master"),
    ("layers", "errors.py", "import aemesh.limits"),
    ("layers", "attic.py", "A_ROOM = 'that has no place in the list'"),
    ("sans-io", "policy/membership.py", "import time"),
    ("sans-io", "protocol/session.py", "import trio"),
    ("plugins", "engines/command.py", "import aemesh.master.group"),
    ("plugins-by-name", "master/group.py", "import aemesh.engines.dask"),
    ("one-engine-one-file", "engines/command.py", "import aemesh.engines.dask"),
    ("mdns-alone", "net/link.py", "import zeroconf"),
    ("gss-alone", "net/link.py", "import gssapi"),
    ("fakes-stay-in-tests", "worker/held.py", "import aemesh.testing.memory_network"),
    ("acyclic", "model/words.py", "import aemesh.model.key"),
]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its contracts, to be broken and mended again."""
    folder = tmp_path_factory.mktemp("house")
    leave_out = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "aemesh", folder / "aemesh", ignore=leave_out)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def lint(folder: Path) -> tuple[int, set[str], str]:
    """Return the exit code, the contracts that are broken, and all that was said."""
    program = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [program, "--no-logo", "--cache-dir", "cache"],
        cwd=folder,
        env={**os.environ, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    broken = {
        contract for contract, name in CONTRACTS.items() if f"{name} BROKEN" in said
    }
    return done.returncode, broken, said


def test_every_contract_holds(house: Path):
    code, broken, said = lint(house)

    assert (code, broken) == (0, set()), said
    for name in CONTRACTS.values():
        assert f"{name} KEPT" in said


def test_every_contract_has_a_breach_here():
    assert {contract for contract, *_ in BREACHES} == set(CONTRACTS)


@pytest.mark.parametrize(("contract", "file", "line"), BREACHES)
def test_a_deliberate_breach_is_noticed(
    house: Path, contract: str, file: str, line: str
):
    path = house / "aemesh" / file
    before = path.read_text() if path.exists() else None

    path.write_text(f"{before or ''}\n{line}\n")
    try:
        code, broken, said = lint(house)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)

    assert code != 0, said
    assert contract in broken, said
