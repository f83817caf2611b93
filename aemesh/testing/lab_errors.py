"""What the lab says when it cannot do what it was asked."""

from __future__ import annotations

from aemesh.errors import AemeshError


class LabError(AemeshError):
    """The lab, or a program that ran in it, did not do what a test asked for."""

    name = "lab/trouble"
    exit_code = 1
