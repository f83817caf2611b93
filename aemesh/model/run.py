"""A durable run: work under a key of the user's choice, kept item by item."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NewType

from aemesh.errors import BadMessage, quoted
from aemesh.model.names import GroupName

RunKey = NewType("RunKey", str)
ItemId = NewType("ItemId", str)

# It stands in an address of the control API and in a shell's word: no slash, no space.
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@+=-]{0,127}", re.ASCII)
# What a client makes of an item's content: 16 bytes of a digest.
_ITEM = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def run_key_untrusted(text: str) -> RunKey:
    """Return `text` if it is the key of a run, or raise `BadMessage`."""
    if not _KEY.fullmatch(text):
        letters = "A-Z a-z 0-9 _"
        rule = f"1 to 128 of {letters} . : @ + = -, the first of {letters}"
        msg = f"run key {quoted(text)}: expected {rule}"
        raise BadMessage(msg)
    return RunKey(text)


def item_id_untrusted(text: str) -> ItemId:
    """Return `text` if it is the id of an item, or raise `BadMessage`."""
    if not _ITEM.fullmatch(text):
        msg = f"item {quoted(text)}: expected 32 hexadecimal digits"
        raise BadMessage(msg)
    return ItemId(text)


def rule_of(fingerprint: str) -> str:
    """Return by which rule a fingerprint was made; the first one had no name."""
    return fingerprint.rpartition(":")[0]


def digest_untrusted(text: str) -> str:
    """Return `text` if it is a SHA-256 in hexadecimal digits, or raise `BadMessage`."""
    if not _DIGEST.fullmatch(text):
        msg = f"digest {quoted(text)}: expected 64 hexadecimal digits"
        raise BadMessage(msg)
    return text


@dataclass(frozen=True, slots=True)
class RunName:
    """One life of a run: begun anew it has the same key and a higher number."""

    group: GroupName
    key: RunKey
    life: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as it is kept."""

    group: str
    key: str
    life: int
    title: str  # what is computed, for people
    fingerprint: str  # what is computed, for comparing
    total: int  # items of the client that opened it last
    items: int  # that are committed
    bytes: int  # of their values
    checkpoints: int
    created_at: float  # seconds since 1970
    used_at: float  # when it was opened last


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """One committed item; `number` rises with each commit of the master."""

    number: int
    id: str
    title: str
    digest: str  # SHA-256 of the value
    size: int  # bytes
    worker: str  # that computed it, "" for the client itself
    at: float  # seconds since 1970


@dataclass(frozen=True, slots=True)
class Commit:
    """Values of finished items; each counts once it is on the disk."""

    run: RunName
    items: tuple[Piece, ...]
    worker: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """The value of one item, or its state at a checkpoint."""

    id: ItemId
    value: bytes
    title: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of an item in the middle; the next one takes its place."""

    run: RunName
    item: Piece
    worker: str = ""


Order = Commit | Checkpoint
