"""Modules that a group names, imported before its workers are forked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = Path(__file__).parents[2] / "aemesh" / "engines" / "dask"
BAD = {
    "exits": "import os; os._exit(3)",
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import threading; threading.Event().wait()",
    "raises": "raise RuntimeError('no licence')",
    "leaves": "raise SystemExit(0)",
    "threads": "import threading as t; t.Thread(target=t.Event().wait, daemon=True)"
    ".start()",
    "joins": "import threading as t; a = t.Thread(target=len, args=[()]); a.start();"
    " a.join()",
    "noisy": "import os; os.write(1, b'!')",
}
PROGRAM = """
import json, sys
from dask_preload import preload
told = preload(sys.argv[1:], within=0.5)
print(json.dumps([told, [m for m in sys.argv[1:] if m in sys.modules]]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "dask_preload.py").write_text((ENGINES / "dask_preload.py").read_text())
    for name, text in {**BAD, "good": "", "other": "import good"}.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def run(folder: Path, *modules: str) -> tuple[dict[str, str], list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *modules],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        check=True,
    )
    told, imported = json.loads(done.stdout.splitlines()[-1].lstrip(b"!"))
    return told, imported


def test_good_modules_are_imported_and_the_others_told_with_the_reason(
    folder: Path,
) -> None:
    """Shows: L4."""
    names = ("good", "raises", "no.such", "exits", "hangs", "crashes", "leaves")
    told, imported = run(folder, *names, "threads", "other", "joins", "noisy")

    assert imported == ["good", "other", "joins", "noisy"]
    assert told == {
        "raises": "RuntimeError: no licence",
        "no.such": "ModuleNotFoundError: No module named 'no'",
        "exits": "its import ended the process",
        "hangs": "its import takes longer than 0.5 s",
        "crashes": "its import ended the process",
        "leaves": "SystemExit: 0",
        "threads": "RuntimeError: a worker that is forked with the thread that it"
        " starts would hang",
    }


def test_nothing_to_import_is_nothing_to_do(folder: Path) -> None:
    assert run(folder, "json") == ({}, ["json"])
