"""What the scenarios share: the data, and what the laptop alone makes of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.lab.office import TIMES, open_office

GENERATOR = Path(__file__).parents[2] / "examples" / "make_dimuon.py"


@pytest.fixture(scope="session")
def muons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small set of files, made once."""
    folder = tmp_path_factory.mktemp("muons")
    size = ["--files", "4", "--events", "20000"]
    argv = [sys.executable, str(GENERATOR), str(folder), *size]
    subprocess.run(argv, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def counts(muons: Path) -> str:
    """The digest of the histogram that ``aemesh run`` on a laptop alone makes."""

    async def alone() -> str:
        async with open_office(["laptop"]) as office:
            analysis = await office.analyse(None, muons)
            result = await analysis.wait()
            assert result["hosts"] == ["laptop"]
            return str(result["counts_sha256"])

    return trio.run(alone)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what was measured; nothing but the promises is asserted of it."""
    if TIMES:
        terminalreporter.section("measured in the lab")
        for line in TIMES:
            terminalreporter.write_line(line)
