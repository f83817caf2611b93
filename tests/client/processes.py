"""The same asked of several processes."""

from __future__ import annotations

import subprocess
import sys


def says_the_same_everywhere(code: str) -> bool:
    """Whether processes with other seeds of their hashes print the same."""
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    return len(told) == 1
