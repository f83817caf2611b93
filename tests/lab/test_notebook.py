"""A notebook, as Jupyter runs it: a kernel on the laptop, workers in the office."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.lab.office import LAB, open_office

pytestmark = LAB
pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = """
import json, nbclient, nbformat
from nbformat.v4 import new_code_cell, new_notebook

CELLS = [
    "from aemesh.dask import AemeshCluster\\nfrom distributed import Client\\n"
    "cluster = AemeshCluster('A', n_workers=1)\\nclient = Client(cluster)\\ncluster",
    "cluster.scale(2)\\ncluster.wait_for_workers(2, timeout=20)\\n"
    "len(client.scheduler_info()['workers'])",
    "sum(client.gather(client.map(lambda x: x * x, range(10))))",
    "client.close(); cluster.close()\\ncluster.status.name",
]
book = new_notebook(cells=[new_code_cell(text) for text in CELLS])
nbclient.NotebookClient(book, timeout=60, kernel_name="python3").execute()
print(json.dumps([[dict(one.get("data", {})) for one in cell.outputs if "data" in one]
                  for cell in book.cells]))
"""


async def test_a_notebook_makes_a_cluster_sees_it_scales_it_and_computes():
    """Shows: U5."""
    async with open_office(["laptop", "office-1", "office-2"]) as office:
        for name in ("office-1", "office-2"):
            await office.worker(name)
        await office.master("A")
        script = office.laptop.home / "notebook.py"
        script.write_text(NOTEBOOK)
        script.chmod(0o644)
        done = await office.laptop.run(
            [office.laptop.python, str(script)], stderr=subprocess.DEVNULL
        )
        shown, scaled, computed, closed = json.loads(done.stdout.splitlines()[-1])

    assert shown[0]["text/plain"].startswith("AemeshCluster(A, 'tls://127.0.0.1:")
    assert "<h3" in shown[0]["text/html"]
    assert "AemeshCluster" in shown[0]["text/html"]
    assert "http://127.0.0.1:" in shown[0]["text/html"]
    assert scaled[0]["text/plain"] == "2"
    assert computed[0]["text/plain"] == "285"
    assert closed[0]["text/plain"] == "'closed'"
