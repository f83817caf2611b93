"""Names of nodes and groups: ASCII words that are safe on a terminal and in a path."""

from __future__ import annotations

import re
from typing import NewType

from aemesh.errors import BadMessage, quoted

NodeName = NewType("NodeName", str)
GroupName = NewType("GroupName", str)
JobId = NewType("JobId", str)

# `str.isalnum` would admit Unicode look-alikes; a leading dot or dash would be
# a hidden file or an option, a leading @ a marker in a trust file.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", re.ASCII)
# A dotted name of Python's, nothing relative; longer ones are not met.
_MODULE = re.compile(r"(?!.{101})[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_SETTING = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}", re.ASCII)


def name_untrusted(kind: str, text: str) -> str:
    """Return `text` if it is a name, or raise `BadMessage` naming the `kind`."""
    if not _NAME.fullmatch(text):
        msg = f"{kind} name {quoted(text)}: expected 1 to 64 of A-Z a-z 0-9 _ . @ -"
        raise BadMessage(msg)
    return text


def node_name_untrusted(text: str) -> NodeName:
    """Return a worker's or master's name, or raise `BadMessage`."""
    return NodeName(name_untrusted("node", text))


def group_name_untrusted(text: str) -> GroupName:
    """Return a group's name, or raise `BadMessage`."""
    return GroupName(name_untrusted("group", text))


def label_untrusted(text: str) -> str:
    """Return a worker's label, or raise `BadMessage`."""
    return name_untrusted("label", text)


def job_id_untrusted(text: str) -> JobId:
    """Return a job's id, or raise `BadMessage`."""
    return JobId(name_untrusted("job", text))


def module_untrusted(text: str) -> str:
    """Return a module's name, or raise `BadMessage`."""
    if not _MODULE.fullmatch(text):
        msg = f"module {quoted(text)}: expected a name as after `import`"
        raise BadMessage(msg)
    return text


def setting_untrusted(text: str) -> str:
    """Return the name of an engine's setting, or raise `BadMessage`."""
    if not _SETTING.fullmatch(text):
        msg = f"setting {quoted(text)}: expected 1 to 100 of A-Z a-z 0-9 _ . -"
        raise BadMessage(msg)
    return text
