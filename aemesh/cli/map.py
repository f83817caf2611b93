"""``aemesh map``: a command spread over a group, once for each argument."""

from __future__ import annotations

import base64
import hashlib
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from aemesh.cli import ui
from aemesh.cli.delegation import delegate_options, wish_of
from aemesh.cli.options import assent_option, group_option, json_option, state_option
from aemesh.cli.progress import Counting
from aemesh.client.fingerprint import item_ids
from aemesh.client.itemfiles import ItemFolders, JobLog, fields_of
from aemesh.client.mesh import Mesh
from aemesh.client.spread import Order, Spread
from aemesh.client.template import Args, Template, lines_of, parse, split_lines
from aemesh.errors import AemeshError, UsageError
from aemesh.host.openfiles import take_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aemesh.client.ended import Ended
    from aemesh.client.runs import Run

# GNU parallel's: so many failed, or more.
_MANY = 101
_TITLE_LENGTH = 80
# Workers of which it is told why they are no members.
_REASONS = 8


# What stands behind the command's first word is the command's, with or without --.
@click.command("map", context_settings={"allow_interspersed_args": False})
@group_option
@click.option(
    "-a",
    "--arg-file",
    "files",
    metavar="FILE",
    multiple=True,
    help="Read arguments from the lines of FILE; - is standard input.",
)
@click.option("-0", "--null", is_flag=True, help="Arguments end with a zero byte.")
@click.option(
    "-j",
    "--jobs",
    "slots",
    type=click.IntRange(1),
    metavar="N",
    help="Items at one time on each worker; without it one for each core.",
)
@click.option(
    "--retries",
    type=click.IntRange(0),
    default=2,
    show_default=True,
    metavar="N",
    help="How many times more an item is tried that failed, elsewhere if it can be.",
)
@click.option(
    "--key",
    metavar="KEY",
    help="Keep what is finished: the same again goes on from there.",
)
@assent_option("--anew", "anew", "Forget what is kept under the key.")
@click.option(
    "-k", "--keep-order", is_flag=True, help="Print in the order of the arguments."
)
@click.option("--tag", is_flag=True, help="Begin each line with the item's arguments.")
@click.option(
    "--results",
    metavar="DIR",
    help="Write each item's outputs and end to DIR/ITEM/, and print nothing.",
)
@click.option("--joblog", metavar="FILE", help="Write a line of each item to FILE.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and run none.")
@delegate_options
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED)
@state_option
@json_option
def map_(  # noqa: PLR0913, PLR0917 - the options of the command
    group_name: str,
    files: tuple[str, ...],
    slots: int | None,
    retries: int,
    key: str | None,
    results: str | None,
    joblog: str | None,
    delegate: str | None,
    delegate_from: str | None,
    words: tuple[str, ...],
    state: str | None,
    *,
    null: bool,
    anew: bool,
    keep_order: bool,
    tag: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run a command for each argument, spread over a group.

    As with GNU parallel: `aemesh map --group A -- gzip -9 {} ::: *.csv`.  No shell
    reads the words.  The exit code is the number of items that failed, 101 if they are
    more than 100; 255 is a failure of ours.
    """
    template, items = parse(words, files=files, read=lambda name: _lines(name, null))
    if dry_run:
        for number, args in enumerate(items, start=1):
            ui.write(shlex.join(template.fill(args, number)))
        return 0
    if anew and key is None:
        msg = "--anew without a key"
        raise UsageError(msg, why="there is nothing that was kept")
    mesh, wish = Mesh(state), wish_of(delegate, delegate_from)
    take_files()  # with -k, each long output that waits its turn is one
    mesh.connect(group_name)  # waits for it to have members
    run = _run(mesh, group_name, key, template, count=len(items), fresh=anew)
    spread = Spread(
        _orders(template, items, run),
        status=mesh.status,
        group=group_name,
        wait=lambda: mesh.connect(group_name),
        start=lambda member, argv, env: mesh.job(
            member, argv, env, group=group_name, delegate=wish
        ),
        run=run,
        retries=retries,
        slots=slots,
    )
    with ExitStack() as stack:
        writers: list[Callable[[Ended], None]] = []
        if results is not None:
            writers.append(ItemFolders(Path(results), count=len(items)).write)
        if joblog is not None:
            log = stack.enter_context(closing(JobLog(Path(joblog))))
            writers.append(log.write)
        show = _Show(items, as_json=as_json, tag=tag, silent=results is not None)
        waits = partial(_say_waiting, mesh, group_name)
        return _follow(spread, writers, show, waits=waits, keep_order=keep_order)


def _lines(name: str, null: bool) -> list[str]:
    if name == "-":
        return split_lines(sys.stdin.buffer.read(), null=null)
    return lines_of(Path(name), null=null)


def _run(  # noqa: PLR0913 - what a run is, by name
    mesh: Mesh,
    group: str,
    key: str | None,
    template: Template,
    *,
    count: int,
    fresh: bool,
) -> Run | None:
    if key is None:
        return None
    words = "\0".join(template.words)
    return mesh.runs.open(
        group,
        key,
        fingerprint=hashlib.sha256(words.encode()).hexdigest(),
        title=shlex.join(template.words),
        total=count,
        fresh=fresh,
    )


def _orders(
    template: Template, items: Sequence[Args], run: Run | None
) -> Sequence[Order]:
    commands = [template.fill(args, n) for n, args in enumerate(items, start=1)]
    if run is None:
        return [Order(argv) for argv in commands]
    # An item is its command: with {#} in it, another one where it has another number.
    return [
        Order(argv, item, shlex.join(args)[:_TITLE_LENGTH])
        for argv, args, item in zip(commands, items, item_ids(commands), strict=True)
    ]


def _follow(
    spread: Spread,
    writers: Sequence[Callable[[Ended], None]],
    show: _Show,
    *,
    waits: Callable[[], None],
    keep_order: bool,
) -> int:
    """Show items as they end; return the exit code.

    `waits` says that there is no member to go on with.
    """
    total, done, failed = len(spread.orders), 0, 0
    warned: set[str] = set()
    was_alone = False
    with Counting("map", total) as count:

        def tick() -> None:
            nonlocal was_alone
            if spread.waits and not was_alone:
                with count.hidden():
                    waits()
            was_alone = spread.waits
            for name, why in spread.aside().items():
                if name not in warned:
                    warned.add(name)
                    with count.hidden():
                        ui.warn(f"{name} gets no items for a while: {why}")
            words = f"{spread.running} run" + (f", {failed} failed" if failed else "")
            count.show(done, words)

        ended = spread.results(tick=tick)
        with closing(ended):
            for one in _in_order(ended) if keep_order else ended:
                done += 1
                failed += not one.ok
                for write in writers:
                    write(one)
                with count.hidden():
                    show.item(one)
                tick()
    show.end(total, failed, spread.members)
    return min(failed, _MANY)


def _say_waiting(mesh: Mesh, group: str) -> None:
    """Say that a group has no members, and why; one that is gone is told otherwise."""
    with suppress(AemeshError):
        reasons = [
            f"{one.worker}: {one.why}" for one in mesh.group_status(group).refused
        ]
        shown = reasons[:_REASONS]
        if rest := len(reasons) - len(shown):
            shown.append(f"{rest} more")
        why = "; ".join(shown) or "no worker was found on this network"
        ui.warn(f"waiting for group {group} to have members: {why}")


def _in_order(ended: Iterator[Ended]) -> Iterator[Ended]:
    """Yield items in the order of their numbers, each as soon as it can be."""
    waiting: dict[int, Ended] = {}
    number = 0
    for one in ended:
        waiting[one.number] = one
        while number in waiting:
            yield waiting.pop(number)
            number += 1


@dataclass(frozen=True, slots=True)
class _Show:
    """How items are shown."""

    items: Sequence[Args]
    as_json: bool
    tag: bool
    silent: bool

    def item(self, ended: Ended) -> None:
        """Show one that has ended."""
        if self.as_json:
            self._json(ended)
            return
        if not self.silent:
            for said, error in ((ended.stdout, False), (ended.stderr, True)):
                if said.size:
                    self._pass_on(ended, said.all(), error=error)
        if not ended.ok:
            why = f" ({ended.reason})" if ended.reason else ""
            words = shlex.join(self.items[ended.number])
            on = f" on {ended.worker}, after {ended.tries} tries"
            ui.say(f"item {ended.number + 1}, {words}: exit code {ended.code}{why}{on}")

    def end(self, total: int, failed: int, members: Sequence[str]) -> None:
        """Say what came of it, where more than the output is wanted."""
        if self.silent or failed:
            on = f" on {', '.join(members)}" if members else ""
            ui.say(f"{total} items{on}: {total - failed} done, {failed} failed")

    def _json(self, ended: Ended) -> None:
        fields = fields_of(ended)
        if not self.silent:
            for name, said in (("stdout", ended.stdout), ("stderr", ended.stderr)):
                fields[name] = base64.b64encode(said.all()).decode()
        ui.write_json(fields | {"args": list(self.items[ended.number])})

    def _pass_on(self, ended: Ended, data: bytes, *, error: bool) -> None:
        if self.tag:
            tag = " ".join(self.items[ended.number]).encode() + b"\t"
            lines = data.splitlines(keepends=True)
            data = b"".join(tag + line for line in lines)
        ui.pass_on(data, error=error)
