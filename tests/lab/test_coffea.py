"""coffea's own executor for Dask, unmodified, on a cluster object of ours.

coffea brings a gigabyte along, so it is in no set-up: `.ci/extra .venv coffea`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.lab.office import LAB, give, open_office

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [*LAB, pytest.mark.long]
pytest.importorskip("coffea", reason="coffea is a gigabyte: `.ci/extra .venv coffea`")

ANALYSIS = """
import json, sys
import awkward as ak
from coffea import processor
from coffea.nanoevents import BaseSchema
from distributed import Client
from aemesh.dask import AemeshCluster

class Pairs(processor.ProcessorABC):
    def process(self, events):
        return {"events": len(events), "pairs": int(ak.sum(events["nMuon"] == 2))}

    def postprocess(self, accumulator):
        return accumulator

if __name__ == "__main__":
    told = []
    with AemeshCluster("A") as cluster, Client(cluster) as client:
        cluster.wait_for_workers(1, timeout=30)
        for executor in (
            processor.IterativeExecutor(status=False),
            processor.DaskExecutor(client=client, status=False),
        ):
            run = processor.Runner(executor, schema=BaseSchema, chunksize=10000)
            found = run({"d": sys.argv[1:]}, Pairs(), treename="Run2016")
            told.append(dict(found))
    print(json.dumps(told))
"""


async def test_coffea_runs_on_a_cluster_of_ours_as_it_does_alone(muons: Path):
    """Shows: E6; its tasks read the files themselves, so they run where these are."""
    async with open_office(["laptop"]) as office:
        await office.worker("laptop", "--accept-first-master")
        await office.master("A", more=["--preload", "coffea.processor"])
        await office.joined("laptop")
        script = office.laptop.home / "pairs.py"
        script.write_text(ANALYSIS)
        script.chmod(0o644)
        data = give(office.laptop, muons)
        done = await office.laptop.run([office.laptop.python, str(script), *data])
        alone, together = json.loads(done.stdout.splitlines()[-1])

    assert alone == together
    assert alone["events"] > alone["pairs"] > 0
