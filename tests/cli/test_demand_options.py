"""What is typed of a group's wishes."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from aemesh.cli.options import demand_of, demand_options
from aemesh.errors import UsageError


@click.command()
@demand_options
def wish(**wishes) -> None:
    click.echo(repr(demand_of(**wishes)))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("", {}),
        ("--preload uproot,awkward", {"preload": ("uproot", "awkward")}),
        ("--preload none", {"preload": ()}),
        ("--set a.b=inf --set c=x=y", {"settings": {"a.b": "inf", "c": "x=y"}}),
        ("--set a.b=", {"settings": {"a.b": None}}),
        ("--max none --require none", {"max": None, "require": ""}),
    ],
)
def test_words_are_the_change_that_they_say(words: str, change: dict) -> None:
    done = CliRunner().invoke(wish, words.split())

    assert (done.exit_code, done.output) == (0, f"{change!r}\n")


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(UsageError, match="NAME=VALUE"):
        demand_of(
            least=None,
            most=None,
            weight=None,
            wait_after=None,
            require=None,
            preload=None,
            settings=("distributed.x",),
        )
