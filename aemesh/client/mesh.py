"""The Python API begins here: a running master, and one group of it.

::

    with aemesh.connect("analysisA") as group:
        client = group.client()
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aemesh.client.control import Control
from aemesh.client.environment import GROUP_VARIABLE
from aemesh.client.group import Group
from aemesh.client.targets import checked_group
from aemesh.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Mesh(Control):
    """A running master of one state directory.

    Making it asks nothing; `NoMasterError` comes from the first call.
    """

    def group(self, name: str) -> Group:
        """Return a group once its engine is up."""
        return Group(self, self.connect(name))


def connect(group: str | None = None, *, state: str | Path | None = None) -> Group:
    """Return a group of the running master, once its engine is up.

    Without a name it is the one that `aemesh run --group` started this script for.
    """
    return Mesh(state).group(group_name(group))


def group_name(given: str | None) -> str:
    """Return the name that was given, or that of the group we were started for."""
    name = given or os.environ.get(GROUP_VARIABLE)
    if not name:
        msg = "which group?"
        raise UsageError(msg, why=f"no name was given and ${GROUP_VARIABLE} is not set")
    return checked_group(name)
