"""``aemesh run --group``: what is left after a script that was interrupted."""

from __future__ import annotations

import os
import signal
import sys
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING

import pytest
import trio

from aemesh.host.control.sockets import SOCKET_FILE
from aemesh.master.control import serve_control
from aemesh.testing.memory_control import MemoryControl

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import os, signal
print(os.path.dirname(os.environ["TLS"]), flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_credentials_are_gone_after_an_interrupted_script(
    tmp_path: Path, number: signal.Signals
):
    api = MemoryControl(engines={"A": "dask"})
    (tmp_path / "script.py").write_text(SCRIPT)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, api, tmp_path / "master" / SOCKET_FILE)
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "aemesh", "run", "--group", "A", "script.py"],
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=DEVNULL,
            cwd=tmp_path,
            env={**os.environ, "AEMESH_STATE": str(tmp_path)},
        )
        with trio.fail_after(20):
            shown = b""
            while not shown.endswith(b"\n"):
                shown += await process.stdout.receive_some()
            folder = os.fsdecode(shown.strip())
            assert os.stat(folder)
            process.send_signal(number)

            assert await process.wait() == 128 + number
        await process.stdout.aclose()
        nursery.cancel_scope.cancel()

    assert not list((tmp_path / "clients").iterdir())
