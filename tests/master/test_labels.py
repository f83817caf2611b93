"""A group's labels: one for each member, never given twice."""

from __future__ import annotations

from aemesh.master.labels import Labels


def test_a_machine_set_up_anew_gets_a_label_that_no_door_refuses_yet() -> None:
    labels = Labels()

    assert labels.next("office-1", 4) == "office-1.4"
    assert labels.next("office-1", 1) == "office-1.5"
    assert labels.next("office-2", 1) == "office-2.1"
    assert len(labels.next("x" * 64, 99999)) <= 64


def test_labels_of_a_former_life_are_taken() -> None:
    labels = Labels(["office-1.7", "office-1.3", "host.example.2"])

    assert labels.next("office-1", 1) == "office-1.8"
    assert labels.next("host.example", 1) == "host.example.3"
