"""What a group's workers must have: reading it, and telling what a worker lacks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import UsageError
from aemesh.model.machine import Facts
from aemesh.model.names import NodeName
from aemesh.policy.require import ANYTHING, parse_requirement

NAME = NodeName("office-1")
FACTS = Facts(
    cores=4,
    memory=8 << 30,
    python="3.11.2",
    system="linux-x86_64",
    labels=("gpu", "big-disk"),
)


def lacks(text: str, facts: Facts = FACTS) -> str:
    return parse_requirement(text).lacks(NAME, facts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "cores>=4",
        "cores >= 4",
        "cores==4 and memory==8G",
        "memory>=8192M",
        "memory>7.5G and memory<1T",
        "memory>=8388608K",
        '"gpu" in labels',
        "'gpu' in labels",
        '"tpu" not in labels',
        'not "tpu" in labels',
        "cores>8 or memory>=8G",
        "cores>8 or cores<2 or cores==4",
        "not cores>8",
        "not (cores>8 or memory>16G)",
        "not not cores==4",
        "(((cores==4)))",
        "cores>8 and cores>9 or cores==4",  # `and` binds more strongly
        "python>=3.11",
        'python=="3.11"',  # as many parts as are given
        "python<3.12 and python<=3.11 and python!=3.10",
        "python>=3.9",  # by number, not by letter
        'system=="linux-x86_64" and "x86" in system',
        'name=="office-1" and name!="office-2" and "office-" in name',
        'cores>=4 and memory>=8G and "gpu" in labels',
    ],
)
def test_a_worker_satisfies(text: str) -> None:
    assert lacks(text) == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cores>=8", "cores 4, wanted >= 8"),
        ("memory>=16G", "memory 8.0 GiB, wanted >= 16G"),
        ("not cores>=4", "cores 4, wanted < 4"),
        ('"tpu" in labels', 'no label "tpu"'),
        ('"GPU" in labels', 'no label "GPU"'),
        ('"gpu" not in labels', 'has the label "gpu"'),
        ("cores>8 and memory>16G", "cores 4, wanted > 8; memory 8.0 GiB, wanted > 16G"),
        (
            "cores>8 or memory>16G",
            "cores 4, wanted > 8, or memory 8.0 GiB, wanted > 16G",
        ),
        ("cores>8 or cores<2 and cores<1", None),
        ("not (cores==4 and memory==8G)", None),
        ("python>=3.12", 'python "3.11.2", wanted >= 3.12'),
        ("python>3.11", 'python "3.11.2", wanted > 3.11'),
        ('name=="office-2"', 'name "office-1", wanted == "office-2"'),
        ('"arm" in system', 'system "linux-x86_64", wanted "arm" in it'),
        ('"x86" not in system', 'system "linux-x86_64", wanted no "x86" in it'),
    ],
)
def test_what_a_worker_lacks_is_told(text: str, expected: str | None) -> None:
    told = lacks(text)

    assert told if expected is None else told == expected


@pytest.mark.parametrize(
    ("text", "column", "why"),
    [
        ("cores", 6, "expected one of =="),
        ("cores >", 8, "a number of cores"),
        ("cores >= 4K", 10, "a number of cores"),
        ("cores >= 1.5", 10, "a number of cores"),
        ('cores >= "4"', 10, "a number of cores"),
        ("memory >= 8", 11, "a size with its unit"),
        ("memory >= 8GB", 11, "a size with its unit"),
        ("memory >= 9999999999999G", 11, "a size with its unit"),
        ("python >= new", 11, "a version"),
        ("name == office", 9, "a text in quotes"),
        ('name < "b"', 6, "has no order"),
        ('labels == "gpu"', 8, '"gpu" in labels'),
        ("gpu in labels", 1, "expected one of cores, memory"),
        ('"gpu"', 6, 'expected "in labels"'),
        ('"gpu" in cores', 10, 'expected "labels"'),
        ('"gpu in labels', 1, "the quote is not closed"),
        ("cores>=4 memory>=8G", 10, 'expected "and"'),
        ("cores>=4 and", 13, "expected one of cores"),
        ("(cores>=4", 10, 'expected ")"'),
        ("cores>=4)", 9, 'expected "and"'),
        ("cores>=4 && cores<8", 10, "what is this"),
        ("4 <= cores", 1, "expected one of cores"),
        ("cores = 4", 7, "what is this"),
        ("__import__('os')", 1, "expected one of cores"),
        ("not " * 40 + "cores>1", 32 * 4 + 1, "nested more than"),
        ("(" * 40 + "cores>1" + ")" * 40, 33, "nested more than"),
        ("cores>=\u0664", 8, "what is this"),  # a digit, elsewhere
    ],
)
def test_what_cannot_be_read_is_pointed_at(text: str, column: int, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_requirement(text)

    assert f"column {column}," in caught.value.what
    assert why in (caught.value.why or "")
    assert caught.value.hint is not None


def test_a_requirement_is_no_longer_than_the_limit() -> None:
    parse_requirement("cores>=1".ljust(limits.REQUIRE_LENGTH))
    with pytest.raises(UsageError, match="at most"):
        parse_requirement("cores>=1".ljust(limits.REQUIRE_LENGTH + 1))


_WORDS = st.sampled_from(
    [
        *("cores", "memory", "labels", "name", "python", "system"),
        *("not", "and", "or", "in", "(", ")", ">=", "==", "<", "!="),
        *("4", "8G", "3.11", '"gpu"', "'", '"', "!"),
    ]
)


@given(st.text() | st.lists(_WORDS).map(" ".join) | st.lists(_WORDS).map("".join))
@example("\x00")
@example("é" * 2000)
@example("9" * 900)
@example("memory>=" + "9" * 900 + "G")
@example("python==" + "9." * 400 + "9")
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is typed: a condition that tells its lack, or an error of ours."""
    try:
        condition = parse_requirement(text)
    except UsageError:
        return
    odd = replace(FACTS, python="", labels=())
    if condition is ANYTHING:
        return

    assert bool(condition.lacks(NAME, FACTS)) is not bool(
        condition.negated().lacks(NAME, FACTS)
    )
    assert isinstance(condition.lacks(NAME, odd), str)
