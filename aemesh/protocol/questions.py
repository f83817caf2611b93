"""What a job asks its agent and its master, and what it is answered.

Each is a parcel (`aemesh.protocol.parcel`): words, which are one of these as JSON with
its name in ``t``, and the bytes of values behind them.

| question | answer | bytes |
| --- | --- | --- |
| ``whoami`` | `Self`, by the agent | |
| ``known`` | `Items`: those that are committed | |
| ``commit`` | `Done`, once it is on the master's disk | the values, in order |
| ``checkpoint`` | `Done`, likewise | the state |
| ``resume`` | `State` | the state, in the answer |

A question of a type that we do not know is answered ``refused``, as is whatever cannot
be done.  A job names no group: its runs are those of the group that it works for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from aemesh import limits
from aemesh.errors import AemeshError, BadMessage, quoted
from aemesh.model.run import (
    Checkpoint,
    Commit,
    ItemId,
    Piece,
    RunName,
    item_id_untrusted,
    run_key_untrusted,
)
from aemesh.protocol.parcel import cut_untrusted, pack, unpack_untrusted
from aemesh.protocol.strictjson import convert_untrusted, parse_untrusted

if TYPE_CHECKING:
    from aemesh.model.names import GroupName

Id = Annotated[str, Meta(max_length=32)]
Key = Annotated[str, Meta(max_length=128)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Text = Annotated[str, Meta(max_length=1000)]
Ids = Annotated[tuple[Id, ...], Meta(max_length=limits.RUN_BATCH_ITEMS)]


class ValueHead(msgspec.Struct, frozen=True):
    """One value of a parcel: whose it is, and how many bytes of it are there."""

    id: Id
    size: Annotated[int, Meta(ge=0, le=limits.RUN_VALUE_BYTES)]
    title: Annotated[str, Meta(max_length=limits.RUN_TITLE_LENGTH)] = ""


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """A question or an answer without its name."""


class WhoAmI(Words, frozen=True, kw_only=True):
    """Which job am I, for whom, and when do we leave?"""


class AskKnown(Words, frozen=True, kw_only=True):
    """Which of these items are committed?"""

    run: Key
    life: Count
    items: Ids


class AskCommit(Words, frozen=True, kw_only=True):
    """These items are finished; here are their values."""

    run: Key
    life: Count
    items: Annotated[tuple[ValueHead, ...], Meta(max_length=limits.RUN_BATCH_ITEMS)]


class AskCheckpoint(Words, frozen=True, kw_only=True):
    """So far is this item; go on from here if it is cut off."""

    run: Key
    life: Count
    item: ValueHead


class AskResume(Words, frozen=True, kw_only=True):
    """Has this item been begun before, and how far was it?"""

    run: Key
    life: Count
    item: Id


class Self(Words, frozen=True, kw_only=True):
    """Who you are; `leaves_after` are seconds, None if nothing is agreed."""

    job: Text
    group: Text
    generation: Count
    worker: Text  # the worker's key, SHA256:…
    master: Text  # its master's
    leaves_after: float | None = None


class Items(Words, frozen=True, kw_only=True):
    """These."""

    items: Ids


class Done(Words, frozen=True, kw_only=True):
    """What you asked was done, and stays."""


class State(Words, frozen=True, kw_only=True):
    """It was begun, or it was not; the bytes are its state."""

    found: bool


class Refused(Words, frozen=True, kw_only=True):
    """What you asked was not done; `error` is a name of `aemesh.errors`."""

    error: Text
    what: Text
    why: Text | None = None
    hint: Text | None = None


QUESTIONS: dict[str, type[Words]] = {
    "whoami": WhoAmI,
    "known": AskKnown,
    "commit": AskCommit,
    "checkpoint": AskCheckpoint,
    "resume": AskResume,
}
ANSWERS: dict[str, type[Words]] = {
    "self": Self,
    "items": Items,
    "done": Done,
    "state": State,
    "refused": Refused,
}
_NAMES = {kind: name for name, kind in (QUESTIONS | ANSWERS).items()}


def encode(words: Words, *blobs: bytes) -> bytes:
    """Return a question or an answer as a parcel."""
    fields = {"t": _NAMES[type(words)], **msgspec.to_builtins(words)}
    return pack(msgspec.json.encode(fields), *blobs)


def refused(error: AemeshError) -> bytes:
    """Return the answer that says what went wrong."""
    fields = error.fields()
    texts = {
        name: str(fields[name])[:1000]
        for name in ("error", "what", "why", "hint")
        if fields[name] is not None
    }
    return encode(Refused(**texts))


def question_untrusted(data: bytes) -> tuple[Words, memoryview]:
    """Return what a job asks, and the bytes behind it; raises `BadMessage`."""
    return _decoded(data, QUESTIONS)


def brings_state(data: bytes) -> bool:
    """Whether a question is answered by a state; all other answers are short."""
    try:
        words, _ = question_untrusted(data)
    except BadMessage:  # it is refused
        return False
    return isinstance(words, AskResume)


def answer_untrusted(data: bytes) -> tuple[Words, memoryview]:
    """Return what a job is answered, and the bytes behind it; raises `BadMessage`."""
    return _decoded(data, ANSWERS)


def order_untrusted(
    words: AskCommit | AskCheckpoint, blob: memoryview, *, group: GroupName, worker: str
) -> Commit | Checkpoint:
    """Return what a job of this group wants written; raises `BadMessage`."""
    run = run_untrusted(words, group)
    heads = words.items if isinstance(words, AskCommit) else (words.item,)
    values = cut_untrusted(blob, [head.size for head in heads])
    pieces = tuple(
        Piece(item_id_untrusted(head.id), value, head.title)
        for head, value in zip(heads, values, strict=True)
    )
    if isinstance(words, AskCommit):
        return Commit(run, pieces, worker)
    return Checkpoint(run, pieces[0], worker)


def run_untrusted(
    words: AskKnown | AskCommit | AskCheckpoint | AskResume, group: GroupName
) -> RunName:
    """Return the run that a job of this group means; raises `BadMessage`."""
    return RunName(group, run_key_untrusted(words.run), words.life)


def ids_untrusted(ids: tuple[str, ...]) -> list[ItemId]:
    """Return items that a job names; raises `BadMessage`."""
    return [item_id_untrusted(item) for item in ids]


def _decoded(data: bytes, kinds: dict[str, type[Words]]) -> tuple[Words, memoryview]:
    head, blob = unpack_untrusted(data)
    value = parse_untrusted(head)
    name = value.get("t") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in kinds:
        msg = f"unknown question or answer {quoted(str(name))}"
        raise BadMessage(msg)
    return convert_untrusted(value, kinds[name]), blob
