"""Where else a folder is seen, with real mounts in a namespace of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOOK = """
import sys
from pathlib import Path
from aemesh.host.mounts import other_places, read_mounts
print(*sorted(other_places(Path(sys.argv[1]), read_mounts())), sep="\\n")
"""
# A second path, one to a part of it, and one that is covered by something else.
MOUNTS = """
mount --bind "$1/home" "$1/second path"
mount --bind "$1/home/state" "$1/part"
mount --bind "$1/home" "$1/covered"
mount -t tmpfs none "$1/covered"
exec "$2" -c "$3" "$1/home"
"""


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], check=False).returncode != 0,
    reason="no user namespaces here",
)
def test_a_folder_is_found_by_all_its_paths(tmp_path: Path):
    """Home is to be hidden at each of them. Threat: 85."""
    for name in ("home/state", "second path", "part", "covered"):
        (tmp_path / name).mkdir(parents=True)
    top = tmp_path.resolve()
    argv = ["unshare", "-rm", "sh", "-ec", MOUNTS, "sh", str(top), sys.executable, LOOK]

    done = subprocess.run(
        argv, check=True, capture_output=True, text=True, env=dict(os.environ)
    )

    assert done.stdout.splitlines() == [f"{top}/part", f"{top}/second path"]
