"""``make fuzz``: so many inputs for all targets, two at a time, by coverage.

    python -m tests.fuzz [--runs N] [TARGET …]

What it learns stays in ``.fuzz/TARGET``.  A finding ends its target and is printed with
a line for ``tests/fuzz/found.py``; then the exit code is 1.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.targets import TARGETS

CORPUS = Path(".fuzz")
# The longest input: a HELLO with a chain has ten times that, and none of its bytes
# beyond the first thousands is looked at in another way than those before.
LENGTH = 4096
_DONE = re.compile(r"Done (\d+) runs in (\d+) second")
_AT = re.compile(r"^#(\d+)\s", re.MULTILINE)
_CRASH = re.compile(r"Test unit written to (\S+)")


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    name: str
    runs: int
    seconds: int
    crash: Path | None
    said: str


def fuzz(name: str, runs: int) -> Outcome:
    """Give one target so many inputs."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.one", name, str(corpus)),
            *(
                f"-runs={runs}",
                f"-max_len={LENGTH}",
                "-timeout=20",
                "-rss_limit_mb=2048",
            ),
            f"-artifact_prefix={CORPUS}/{name}-",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout + done.stderr
    crash, ended = _CRASH.search(said), _DONE.search(said)
    seen = [int(number) for number in _AT.findall(said)]
    return Outcome(
        name,
        runs=int(ended[1]) if ended else max(seen, default=0),
        seconds=int(ended[2]) if ended else 0,
        crash=Path(crash[1]) if crash else None,
        said="" if done.returncode == 0 else _told(said),
    )


def _told(said: str) -> str:
    """Return what is worth reading of a run that failed: our traceback."""
    _, _, traceback = said.partition("=== Uncaught Python exception: ===")
    return (traceback or said[-3000:])[:3000]


def show(outcome: Outcome) -> None:
    """Print what became of a target."""
    speed = outcome.runs // max(outcome.seconds, 1)
    print(f"{outcome.name:18} {outcome.runs:>10,} inputs  {speed:>8,}/s", flush=True)
    if outcome.said:
        print(outcome.said)
    if outcome.crash is not None:
        found = outcome.crash.read_bytes()
        print(f"for tests/fuzz/found.py:\n    ({outcome.name!r}, {found!r}),")


def main() -> int:
    """Fuzz the targets that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS])
    wish = parser.parse_args()
    names = wish.targets or list(TARGETS)
    shares = sum(TARGETS[name].share for name in names)
    # The slow ones first, so that none is left alone at the end.
    names.sort(key=lambda name: TARGETS[name].share)
    with ThreadPoolExecutor(max_workers=2) as pool:
        outcomes = []
        runs = [wish.runs * TARGETS[name].share // shares + 1 for name in names]
        for outcome in pool.map(fuzz, names, runs):
            outcomes.append(outcome)
            show(outcome)
    print(f"{'in all':18} {sum(one.runs for one in outcomes):>10,} inputs")
    return 1 if any(one.said for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
