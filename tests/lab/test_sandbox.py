"""A worker whose jobs run in a sandbox, on a real host, with Dask in it."""

from __future__ import annotations

import shutil

import pytest

from tests.lab.office import LAB, open_office

pytestmark = [
    *LAB,
    pytest.mark.skipif(not shutil.which("bwrap"), reason="no bubblewrap here"),
]

SCRIPT = """
import os, pathlib
from distributed import Client


def look(_):
    home = pathlib.Path.home()
    return sorted(path.name for path in home.rglob("*key*")), os.getpid() < 100


if __name__ == "__main__":
    with Client() as client:
        keys, few = client.submit(look, 0).result()
        print("keys", [key for key in keys if key != "key.pem"], "few", few)
"""


async def test_an_analysis_runs_in_a_sandbox_that_its_group_requires():
    """Shows: E5. Threat: 85; the open worker is none of the group's."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        laptop = office.laptop
        await office.master("A")
        wanted = ["group", "set", "A", "--require", '"sandbox" in labels']
        await laptop.run([*laptop.aemesh, *wanted])
        first = ("--accept-first-master", "--cores", "1")
        await office.worker("office-1", *first, "--sandbox", "bwrap")
        await office.worker("office-2", *first)
        await office.joined("office-1")
        script = laptop.home / "script.py"
        script.write_text(SCRIPT)

        done = await laptop.run([*laptop.aemesh, "run", "--group", "A", str(script)])
        assert done.stdout.splitlines()[0] == "keys [] few True"

        words = ["exec", "--group", "A", "--", "sh", "-c", "ls -A ~; id -u >&2"]
        told = await laptop.run([*laptop.aemesh, *words])
        uid = office.host("office-1").uid
        assert f"office-1: {uid}" in told.stderr
        assert ".ssh" not in told.stdout
        (other,) = [
            one for one in await office.ask("workers") if one["name"] == "office-2"
        ]
        assert other["group"] in (None, "")
