"""A group's labels: one for each member, never given twice."""

from __future__ import annotations

from types import SimpleNamespace

from aemesh.master.group import Group
from aemesh.model.names import GroupName


def test_a_machine_set_up_anew_gets_a_label_that_no_door_refuses_yet() -> None:
    group = Group(
        GroupName("A"),
        SimpleNamespace(name="none"),
        address=lambda: "127.0.0.1",
        heads=SimpleNamespace(),
        gate=SimpleNamespace(),
        history=SimpleNamespace(),
        wall=lambda: 1.7e9,
    )

    assert group._next_label("office-1", 4) == "office-1.4"
    assert group._next_label("office-1", 1) == "office-1.5"
    assert group._next_label("office-2", 1) == "office-2.1"
    assert len(group._next_label("x" * 64, 99999)) <= 64
