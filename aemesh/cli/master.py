"""``aemesh master``: finds workers and forms groups of them."""

from __future__ import annotations

from typing import Any

import click

from aemesh.cli.delegation import delegate_options, wish_of
from aemesh.cli.options import (
    DEMAND,
    demand_of,
    demand_options,
    idle_option,
    node_options,
    spares_option,
    state_option,
)
from aemesh.cli.spans import span


@click.command()
@state_option
@node_options
@idle_option("without work, requests and clients")
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME",
    help="A group to form; may be given several times.",
)
@click.option(
    "--engine", default="dask", show_default=True, help="What runs on new groups."
)
@demand_options
@spares_option("the next group, as its head")
@click.option(
    "--trust-worker",
    "trusted",
    multiple=True,
    metavar="SHA256:…",
    help="Trust the worker with this key; may be given several times.",
)
@click.option(
    "--accept-new",
    is_flag=True,
    help="Trust every worker that was never seen before, unverified.",
)
@click.option(
    "--kept",
    "kept_after",
    type=span,
    metavar="SPAN",
    help="How long engines and workers go on when this master is gone; else 5m.",
)
@click.option(
    "--heir",
    "heirs",
    multiple=True,
    metavar="SHA256:…",
    help="A master that may take over when this one is gone; may be given several "
    "times.",
)
@click.option(
    "--adopt",
    metavar="SHA256:…",
    help="Take over from the master with this key, which named us as its heir.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="PORT",
    help="The port where workers come in that nobody can dial.",
)
@click.option(
    "--no-listen",
    is_flag=True,
    help="Let nobody in, and dial only: nothing listens but Dask's scheduler.",
)
@delegate_options
def master(delegate: str | None, delegate_from: str | None, **options: Any) -> int:  # noqa: ANN401 - of many kinds
    """Find workers and form groups of them.

    It asks on the terminal about each worker that it does not know; without one,
    `aemesh trust list` and `aemesh trust accept` serve.  Ctrl-C lets all workers go
    gracefully, a second one at once.  --min to --set are for each --group NAME.
    """
    from aemesh.cli.guarded import run_guarded_agent, start_keeper  # noqa: PLC0415

    # A passphrase is asked for here, where Ctrl-C still ends all.
    wish = wish_of(delegate, delegate_from)
    demand = demand_of(**{name: options.pop(name) for name in DEMAND})
    keeper = start_keeper(options)
    return run_guarded_agent(
        "master",
        {**options, "demand": demand, "delegate": wish, "keeper": keeper},
    )
