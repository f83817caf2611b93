"""``make fuzz``: so many inputs for all targets, two at a time, by coverage.

    python -m tests.fuzz [--runs N | --seconds S] [TARGET …]

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
from time import monotonic

from tests.fuzz.targets import DICTIONARY, TARGETS

CORPUS = Path(".fuzz")
WORDS = CORPUS / "dictionary.txt"
AT_ONCE = 2
# The longest input: a HELLO with a chain has ten times that, and none of its bytes
# beyond the first thousands is looked at in another way than those before.
LENGTH = 4096
_EXECUTED = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_CRASH = re.compile(r"Test unit written to (\S+)")


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    name: str
    runs: int
    seconds: float
    crash: Path | None
    said: str


def fuzz(name: str, bound: str) -> Outcome:
    """Give one target inputs until libFuzzer's option `bound` ends it."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    begun = monotonic()
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.fuzz.one", name, str(corpus)),
            *(bound, f"-max_len={LENGTH}", f"-dict={WORDS}", "-timeout=20"),
            *("-rss_limit_mb=2048", "-print_final_stats=1"),
            f"-artifact_prefix={CORPUS}/{name}-",
        ],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    said = done.stdout + done.stderr
    crash, ran = _CRASH.search(said), _EXECUTED.search(said)
    return Outcome(
        name,
        runs=int(ran[1]) if ran else 0,
        seconds=monotonic() - begun,
        crash=Path(crash[1]) if crash else None,
        said="" if done.returncode == 0 else _told(done),
    )


def _told(done: subprocess.CompletedProcess[str]) -> str:
    """Return what is worth reading of a run that failed: our traceback."""
    _, _, traceback = done.stdout.partition("=== Uncaught Python exception: ===")
    return traceback[:3000].rstrip() or done.stderr[-3000:]


def show(outcome: Outcome) -> None:
    """Print what became of a target."""
    speed = outcome.runs / max(outcome.seconds, 0.1)
    print(f"{outcome.name:18} {outcome.runs:>10,} inputs  {speed:>8,.0f}/s", flush=True)
    if outcome.said:
        print(outcome.said)
    if outcome.crash is not None:
        found = outcome.crash.read_bytes()
        print(f"for tests/fuzz/found.py:\n    ({outcome.name!r}, {found!r}),")


def bounds(names: list[str], runs: int, seconds: int) -> list[str]:
    """Return each target's part of all runs, or of so many seconds for all."""
    shares = sum(TARGETS[name].share for name in names)
    parts = [TARGETS[name].share / shares for name in names]
    if seconds:
        whole = seconds * min(AT_ONCE, len(names))
        return [f"-max_total_time={max(1, round(part * whole))}" for part in parts]
    return [f"-runs={round(part * runs) + 1}" for part in parts]


def main() -> int:
    """Fuzz the targets that are named, or all; return the exit code."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS])
    wish = parser.parse_args()
    CORPUS.mkdir(exist_ok=True)
    WORDS.write_text(DICTIONARY, "ascii")
    # The slow ones first, so that none is left alone at the end.
    names = sorted(wish.targets or TARGETS, key=lambda name: TARGETS[name].share)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        outcomes = []
        for outcome in pool.map(fuzz, names, bounds(names, wish.runs, wish.seconds)):
            outcomes.append(outcome)
            show(outcome)
    print(f"{'in all':18} {sum(one.runs for one in outcomes):>10,} inputs")
    return 1 if any(one.said for one in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
