"""``aemesh exec``: pieces of several members become whole lines of each."""

from __future__ import annotations

import base64

import pytest

from aemesh.cli import exec as exec_command
from aemesh.errors import GroupIncompleteError
from aemesh.model.view import OutputView


def said(worker: str, data: bytes, channel: str = "stdout") -> OutputView:
    encoded = base64.b64encode(data).decode()
    return OutputView(worker=worker, channel=channel, data=encoded)


def test_lines_of_two_members_do_not_mix(capfd: pytest.CaptureFixture[str]):
    pieces = [
        said("a", b"on"),
        said("b", b"two\nthr"),
        said("a", b"e\n"),
        said("b", b"ee"),
        said("b", b"oh\n", "stderr"),
        OutputView(worker="b", code=0),
        OutputView(worker="a", code=0),
    ]

    assert exec_command._as_lines(pieces) == 0
    assert capfd.readouterr() == ("b: two\na: one\nb: three\n", "b: oh\n")


def test_the_exit_code_is_the_worst_and_its_member_is_named(
    capfd: pytest.CaptureFixture[str],
):
    pieces = [
        OutputView(worker="a", code=0),
        OutputView(worker="b", code=137, reason="released"),
        OutputView(worker="c", code=2),
    ]

    assert exec_command._as_lines(pieces) == 137
    said = capfd.readouterr()
    assert said == ("", "b: exit code 137 (released)\nc: exit code 2\n")


def test_a_line_without_end_does_not_fill_the_memory(
    capfd: pytest.CaptureFixture[str],
):
    exec_command._as_lines([said("a", b"x" * 50_000)] * 3)

    assert len(capfd.readouterr().out.splitlines()) == 1


def test_output_cannot_steer_the_terminal(capfd: pytest.CaptureFixture[str]):
    exec_command._as_lines([said("a", b"\x1b[2J\tx\r\n\xff\n")])

    assert capfd.readouterr().out == "a: \\x1b[2J\tx\\r\na: \ufffd\n"


def test_what_is_not_base64_is_passed_over(capfd: pytest.CaptureFixture[str]):
    piece = OutputView(worker="a", channel="stdout", data="x")

    assert exec_command._as_lines([piece]) == 0
    assert capfd.readouterr() == ("", "")


def test_a_group_without_members_is_an_error():
    with pytest.raises(GroupIncompleteError, match="group A has no members"):
        list(exec_command._some(iter([]), "A"))
