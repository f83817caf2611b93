"""A small analysis with a result that is known: runs on a group, again and again.

    aemesh run --group A analysis.py SALT

Prints one line of JSON: the result, and who took part.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Any

from distributed import Client, as_completed

PIECES = 24
SPAN = 0.15  # seconds a piece: some are running whenever something goes wrong


def piece(salt: int, number: int) -> tuple[int, str]:
    """Do a piece of work that takes its time."""
    time.sleep(SPAN)  # noqa: TID251 - it stands for work, and runs in Dask
    return (salt + number) ** 2, socket.gethostname()


def total(parts: list[tuple[int, str]]) -> tuple[int, list[str]]:
    """Add what came out: the data has to move for it."""
    return sum(value for value, _ in parts), sorted({host for _, host in parts})


def expected(salt: int) -> int:
    """Return what has to come out."""
    return sum((salt + number) ** 2 for number in range(PIECES))


def main() -> None:
    """Run it."""
    salt = int(sys.argv[1])
    with Client() as client:
        pieces: list[Any] = client.map(piece, [salt] * PIECES, range(PIECES))
        sums = [client.submit(total, pieces[at : at + 6]) for at in range(0, PIECES, 6)]
        found, hosts = 0, set()
        for future in as_completed(sums):
            value, where = future.result()
            found += value
            hosts.update(where)
    print(json.dumps({"result": found, "hosts": sorted(hosts)}))  # noqa: T201


if __name__ == "__main__":
    main()
