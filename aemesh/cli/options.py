"""Options that many commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aemesh import limits
from aemesh.cli.spans import span
from aemesh.errors import UsageError, quoted

if TYPE_CHECKING:
    from aemesh.model.group import DemandChange

# Where a worker finds its join token, if it is not on the command line.
JOIN_VARIABLE = "AEMESH_JOIN"
# What `demand_options` adds, by the names of its variables.
DEMAND = (
    *("least", "most", "weight", "wait_after", "require"),
    *("preload", "settings"),
)

_F = TypeVar("_F", bound=Callable[..., Any])


class TypedOption(click.Option):
    """An option that no settings file and no variable made of its name can set.

    `why` completes the sentence "it cannot be set:".  A secret one has a variable of
    its own, and its value is never shown.
    """

    def __init__(
        self,
        *words: Any,  # noqa: ANN401 - click's
        why: str,
        secret: bool = False,
        **options: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*words, **options)
        self.why = why
        self.secret = secret


def assent_option(name: str, variable: str, text: str) -> Callable[[_F], _F]:
    """Return what adds a flag by which a person agrees to one deed, each time anew."""
    why = "it is said anew each time"
    return click.option(
        name, variable, cls=TypedOption, why=why, is_flag=True, help=text
    )


def _inherit(ctx: click.Context, _param: click.Parameter, value: str | None) -> Any:  # noqa: ANN401 - click's
    """Take ``aemesh --state DIR command`` for ``aemesh command --state DIR``."""
    return value or ctx.find_root().params.get("state")


def state_option(command: _F) -> _F:
    """Add ``--state DIR``; the value is None if it is $AEMESH_STATE or the default."""
    add = click.option(
        "--state",
        cls=TypedOption,
        why="there is one for all commands, above all tables",
        metavar="DIR",
        callback=_inherit,
        help="Folder of keys, trust and run-time files (or $AEMESH_STATE).",
    )
    return add(command)


def json_option(command: _F) -> _F:
    """Add ``--json``, as ``as_json``; errors are JSON then too."""
    add = click.option(
        "--json",
        "as_json",
        is_flag=True,
        callback=_remember_json,
        help="Print JSON, one object a line.",
    )
    return add(command)


def _remember_json(ctx: click.Context, _param: click.Parameter, value: bool) -> bool:
    """Tell `main.run`, which prints the errors."""
    if isinstance(ctx.obj, dict):
        ctx.obj["as_json"] = value
    return value


def group_option(command: _F) -> _F:
    """Add ``--group NAME``, once and required."""
    add = click.option(
        "--group", "group_name", metavar="NAME", required=True, help="The group."
    )
    return add(command)


def idle_option(what: str) -> Callable[[_F], _F]:
    """Return what adds ``--idle-exit SPAN``, as ``idle_exit``."""
    return click.option(
        "--idle-exit",
        type=span,
        metavar="SPAN",
        help=f"End after so long {what}: 30m.",
    )


def spares_option(what: str) -> Callable[[_F], _F]:
    """Return what adds ``--spares N``; `what` completes "that wait for …"."""
    return click.option(
        "--spares",
        type=click.IntRange(0, limits.SPARES),
        default=1,
        show_default=True,
        metavar="N",
        help=f"Engine processes that wait for {what}, each some 40 MB of memory.",
    )


def demand_options(command: _F) -> _F:
    """Add what a group wants; what is not said is None, and stays as it is."""
    for add in (
        click.option(
            "--set",
            "settings",
            metavar="NAME=VALUE",
            multiple=True,
            help="A setting of its engine; NAME= takes it back. May be given several "
            "times.",
        ),
        click.option(
            "--preload",
            metavar="A,B|none",
            help="Modules that its nodes have imported before work comes.",
        ),
        click.option(
            "--require",
            metavar="WHAT|none",
            help="What each worker must have: 'cores>=4 and \"gpu\" in labels'.",
        ),
        click.option(
            "--wait",
            "wait_after",
            type=_span_or_none,
            metavar="SPAN|none",
            help="How long `aemesh run` waits for that least number of workers.",
        ),
        click.option(
            "--weight",
            type=int,
            metavar="N",
            help="Its share of the workers, beside that of other groups.",
        ),
        click.option(
            "--max", "most", metavar="N|none", help="Workers that it has at most."
        ),
        click.option(
            "--min", "least", type=int, metavar="N", help="Workers that it needs."
        ),
    ):
        command = add(command)
    return command


def demand_of(  # noqa: PLR0913 - the options of `demand_options`
    *,
    least: int | None,
    most: str | None,
    weight: int | None,
    wait_after: float | None,
    require: str | None,
    preload: str | None,
    settings: tuple[str, ...],
) -> DemandChange:
    """Return what `demand_options` say; raises `UsageError` for a max that is none."""
    change: DemandChange = {}
    if least is not None:
        change["min"] = least
    if most is not None:
        change["max"] = None if most == "none" else _number("--max", most)
    if weight is not None:
        change["weight"] = weight
    if wait_after is not None:
        change["wait_after"] = wait_after
    if require is not None:
        change["require"] = "" if require == "none" else require
    if preload is not None:
        names = () if preload == "none" else preload.split(",")
        change["preload"] = tuple(name.strip() for name in names)
    if settings:
        change["settings"] = dict(map(_setting, settings))
    return change


def _setting(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    if not equals:
        msg = f"--set {quoted(text)}: expected NAME=VALUE"
        raise UsageError(msg)
    return name.strip(), value.strip() or None


def _span_or_none(text: str) -> float:
    return 0.0 if text == "none" else span(text)


def _number(option: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        msg = f"{option} {quoted(text)}: expected a number, or none"
        raise UsageError(msg)
    return int(text)


def node_options(command: _F) -> _F:
    """Add what workers and masters have in common."""
    for add in (
        click.option("--verbose", is_flag=True, help="Tell more of what goes on."),
        click.option(
            "--insecure-open",
            cls=TypedOption,
            why="it has to be typed at each start",
            is_flag=True,
            help="No authentication at all, for this start only; both sides need it.",
        ),
        click.option(
            "--x509",
            metavar="DIR",
            help="Where certificate, key and CAs are; else x509/ in the state folder.",
        ),
        click.option(
            "--auth",
            type=click.Choice(["leap", "x509", "gss"]),
            default="leap",
            show_default=True,
            help="Leap of faith, site certificates, or Kerberos; both sides need it.",
        ),
        click.option(
            "--host",
            metavar="ADDRESS",
            help="The one address of ours to be reached at.",
        ),
        click.option("--name", metavar="NAME", help="Our name, not the host's."),
    ):
        command = add(command)
    return command
