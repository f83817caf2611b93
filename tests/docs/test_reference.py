"""The reference pages are made from the code, and as fresh as it is."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "docs" / "make_reference.py"


def test_the_reference_pages_are_fresh():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, (
        f"{done.stdout}{done.stderr}run: python docs/make_reference.py"
    )


def test_every_error_has_a_name_of_its_own_and_a_known_exit_code():
    made = runpy.run_path(str(SCRIPT))
    kinds = made["error_classes"]()

    assert len({kind.name for kind in kinds}) == len(kinds)
    assert {kind.exit_code for kind in kinds} <= set(made["EXIT_CODES"])
    assert all(kind.__doc__ for kind in kinds)
