"""Which items of ``aemesh map`` are the same ones under a key, and how many wait."""

from __future__ import annotations

from typing import Any

import pytest

from aemesh.cli.map import _orders
from aemesh.client.ended import Said
from aemesh.client.template import Template
from aemesh.host.openfiles import take_files
from tests.files import few_files

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


def test_more_long_outputs_wait_than_a_process_has_files_by_default() -> None:
    with few_files(left=20):
        take_files()
        waiting = [Said() for _ in range(40)]
        for said in waiting:
            said.add(bytes(1024 * 1024 + 1))
        assert all(said.size == 1024 * 1024 + 1 for said in waiting)
