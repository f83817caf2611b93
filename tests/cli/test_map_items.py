"""Which items of ``aemesh map`` are the same ones under a key."""

from __future__ import annotations

from typing import Any

import pytest

from aemesh.cli.map import _orders
from aemesh.client.template import Template

RUN: Any = object()  # some run: what it is does not count


@pytest.mark.parametrize(("word", "same"), [("{}", True), ("{}-{#}", False)])
def test_an_item_is_found_again_if_its_command_is_the_same(
    word: str, same: bool
) -> None:
    """Shows: E4; with its number in it, it is another one where that has changed."""
    template = Template(("work", word))

    (before,) = _orders(template, [("b",)], RUN)
    _, after = _orders(template, [("a",), ("b",)], RUN)

    assert (before.id == after.id) is same
    assert (before.argv == after.argv) is same
