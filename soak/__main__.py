"""``make soak``: something goes wrong every few seconds, and everything goes right.

    python -m soak [--seconds N] [--seed N] [--story FILE]

Prints the seed and the story as it goes; ``--story`` tells one again that was printed.
Ends with 1 if anything fell.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from pathlib import Path

import trio

from aemesh.testing.lab import reexec_in_user_namespace
from soak.stage import GROUPS, LAPTOP, WORKERS, Stage, open_stage
from soak.story import Deed, Fault, read, tell
from soak.watch import Watch

_LAST_WORDS = 25


def say(line: str) -> None:
    """Print a line at once: whoever kills us still has the story."""
    print(line, flush=True)  # noqa: T201


def tell_logs(stage: Stage) -> None:
    """Print the last words of each master: they tell why, and are gone with the lab."""
    for agent in stage.office.agents:
        if agent.host.name == LAPTOP:
            say(f"# --- {agent.log.name}")
            for line in agent.said.splitlines()[-_LAST_WORDS:]:
                say(f"# {line}")


async def soak(story: list[Deed], seconds: float) -> Watch:
    """Run the office for so long with this story; return what was seen."""
    async with open_stage(say) as stage:
        await stage.start_all()
        watch = Watch(stage, say)
        await watch.settled()
        say("# all serve")
        began = trio.current_time()
        over = trio.Event()

        async def act(deed: Deed) -> None:
            await trio.sleep_until(began + deed.at)
            say(str(deed))
            await stage.do(deed)

        async with trio.open_nursery() as looking:
            looking.start_soon(watch.look)
            async with trio.open_nursery() as working:
                for group in GROUPS:
                    working.start_soon(watch.analyse, group, over.is_set)
                async with trio.open_nursery() as acting:
                    for deed in story:
                        if deed.fault is not Fault.CLOCK or stage.has_clocks:
                            acting.start_soon(act, deed)
                    await trio.sleep_until(began + seconds)
                say("# the story is told; the last analyses end")
                over.set()
            await watch.settled()
            looking.cancel_scope.cancel()
        if watch.falls:
            tell_logs(stage)
        await stage.end_all()
        await watch.nothing_left()
    return watch


def main() -> int:
    """Run it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--story", type=Path, default=None)
    words = parser.parse_args()
    reexec_in_user_namespace()
    # What a shell runs in the background ignores Ctrl-C, and so would all workers here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    seed = words.seed
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    if words.story is not None:
        story = list(read(words.story.read_text().splitlines()))
        say(f"# the story of {words.story}")
    else:
        names = {"master": LAPTOP, "workers": WORKERS, "groups": GROUPS}
        story = tell(seed, words.seconds, **names)
        say(f"# seed {seed}, {words.seconds:g} s: python -m soak --seed {seed}")
    watch = trio.run(soak, story, words.seconds)
    done = ", ".join(f"{group} {count}" for group, count in watch.done.items())
    say(f"# analyses that ended right: {done}; {watch.looks} looks")
    if watch.unanswered:
        say(f"# {watch.unanswered} were not begun: their master was killed just then")
    for fall in watch.falls:
        say(f"# FALL {fall}")
    return 1 if watch.falls else 0


if __name__ == "__main__":
    sys.exit(main())
