"""JSON from strangers: one value of one type, or `BadMessage`.

The naive `json.loads` accepts NaN, 1e999, UTF-16, lone surrogates and the last of
two equal keys, and raises RecursionError on nested brackets; all of these are refused
here alike.  The caller has bounded the size.
"""

from __future__ import annotations

import json
import math
from typing import TypeVar

import msgspec

from aemesh import limits
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
            text,
            object_pairs_hook=_without_twins,
            parse_int=_bounded_int,
            parse_float=_finite_float,
            parse_constant=_no_constant,
        )
        _check_depth(text, value)
        if "\\u" in text:  # only an escape can bring a lone surrogate
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        msg = "JSON nested too deeply"
        raise BadMessage(msg) from None
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


def _bounded_int(digits: str) -> int:
    if len(digits) > limits.JSON_INT_DIGITS:
        msg = f"an integer of {len(digits)} digits"
        raise ValueError(msg)
    return int(digits)


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        msg = f"{digits} is beyond all numbers"
        raise ValueError(msg)
    return number


def _check_depth(text: str, value: object) -> None:
    # What has few brackets is not deep: nearly every message of ours ends here.
    if text.count("[") + text.count("{") <= limits.JSON_DEPTH:
        return
    level: list[object] = [value]
    for _ in range(limits.JSON_DEPTH):
        level = [inner for each in level for inner in _inside(each)]
        if not level:
            return
    msg = f"nested deeper than {limits.JSON_DEPTH}"
    raise ValueError(msg)


def _inside(value: object) -> list[object]:
    """Return the lists and objects directly in a value."""
    match value:
        case dict():
            return [v for v in value.values() if isinstance(v, (dict, list))]
        case list():
            return [v for v in value if isinstance(v, (dict, list))]
    return []


def _no_constant(name: str) -> object:
    msg = f"{name} is not a number"
    raise ValueError(msg)
