"""JSON from strangers: one value of one type, or `BadMessage`.

The naive `json.loads` accepts NaN, UTF-16, lone surrogates and the last of two
equal keys, and raises RecursionError on nested brackets; all of these are refused
here alike.  The caller has bounded the size.
"""

from __future__ import annotations

import json
from typing import TypeVar

import msgspec

from aemesh.errors import BadMessage, quoted

T = TypeVar("T")


def decode_untrusted(data: bytes, kind: type[T]) -> T:
    """Return the value of type `kind` that `data` holds, or raise `BadMessage`."""
    return convert_untrusted(parse_untrusted(data), kind)


def parse_untrusted(data: bytes) -> object:
    """Return the plain value that `data` holds, or raise `BadMessage`."""
    try:
        text = data.decode("utf-8")
        value: object = json.loads(
            text, object_pairs_hook=_without_twins, parse_constant=_no_constant
        )
        if "\\u" in text:  # only an escape can bring a lone surrogate
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise BadMessage("JSON nested too deeply") from None
    except ValueError as exc:  # UnicodeError and JSONDecodeError are ValueErrors
        msg = f"not the JSON that we speak: {quoted(str(exc))}"
        raise BadMessage(msg) from None
    return value


def convert_untrusted(value: object, kind: type[T]) -> T:
    """Return `value` as a `kind`, or raise `BadMessage`."""
    try:
        return msgspec.convert(value, kind)
    except (msgspec.ValidationError, OverflowError, RecursionError) as exc:
        msg = f"{kind.__name__}: {quoted(str(exc))}"
        raise BadMessage(msg) from None


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        msg = "an object names one key twice"
        raise ValueError(msg)
    return found


def _no_constant(name: str) -> object:
    msg = f"{name} is not a number"
    raise ValueError(msg)
