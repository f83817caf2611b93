"""The paths of the control API for what a user has named.

A name that is empty, or has a slash, would make the path of something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from aemesh.errors import BadMessage, UsageError
from aemesh.model.names import group_name_untrusted
from aemesh.model.run import run_key_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable


def group_target(group: str, part: str = "") -> str:
    """Return the path of a group, or of a part of it; raises `UsageError`."""
    return _joined("groups", checked_group(group), part)


def checked_group(name: object) -> str:
    """Return a group's name, or raise `UsageError` for what can be none."""
    if not isinstance(name, str):
        msg = f"a group's name is a string, not {type(name).__name__}"
        raise UsageError(msg)
    hint = "`aemesh group list` shows the groups"
    return _checked(group_name_untrusted, name, hint)


def run_target(group: str, key: str, part: str = "") -> str:
    """Return the path of a durable run, or of a part of it; raises `UsageError`."""
    hint = "`aemesh runs` lists what there is"
    name = _checked(group_name_untrusted, group, hint)
    return _joined("runs", name, _checked(run_key_untrusted, key, hint), part)


def _checked(check: Callable[[str], str], text: str, hint: str) -> str:
    try:
        return check(text)
    except BadMessage as error:
        raise UsageError(error.what, hint=hint) from None


def _joined(*parts: str) -> str:
    return "/".join(("/v1", *(quote(part, safe="") for part in parts if part)))
