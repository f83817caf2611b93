"""The word list, and the words and fingerprints of keys."""

from __future__ import annotations

import itertools
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.model.key import PublicKey
from aemesh.model.words import WORDS, four_words

if TYPE_CHECKING:
    from pathlib import Path


def test_there_is_one_word_for_each_ten_bits():
    assert len(WORDS) == 1024
    assert len(set(WORDS)) == 1024


def test_words_are_short_and_plain():
    assert all(3 <= len(word) <= 8 for word in WORDS)
    assert all(word.isascii() and word.islower() and word.isalpha() for word in WORDS)


def test_no_two_words_differ_in_one_letter_only():
    seen: dict[str, str] = {}
    for word in WORDS:
        # Words one edit apart share a form with one letter taken out.
        forms = {word} | {word[:i] + word[i + 1 :] for i in range(len(word))}
        for form in forms:
            other = seen.setdefault(form, word)
            assert other == word or not one_edit(other, word), (other, word)


def one_edit(a: str, b: str) -> bool:
    """Return whether one letter changed, added or removed makes one of the other."""
    same = sum(
        1 for _ in itertools.takewhile(lambda p: p[0] == p[1], zip(a, b, strict=False))
    )
    tail_a, tail_b = a[same:], b[same:]
    return tail_a[1:] == tail_b[1:] or tail_a[1:] == tail_b or tail_a == tail_b[1:]


@pytest.mark.parametrize(
    ("digest", "words"),
    [
        (bytes(32), [0, 0, 0, 0]),
        (b"\xff" * 32, [1023, 1023, 1023, 1023]),
        (bytes.fromhex("0040100401") + bytes(27), [1, 1, 1, 1]),
        (bytes.fromhex("ffc0000000") + bytes(27), [1023, 0, 0, 0]),
    ],
)
def test_forty_bits_are_four_words(digest: bytes, words: list[int]):
    assert four_words(digest) == "-".join(WORDS[place] for place in words)


@given(st.binary(min_size=5, max_size=64))
def test_only_the_first_forty_bits_count(digest: bytes):
    assert four_words(digest) == four_words(digest[:5])


@pytest.mark.parametrize("raw", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_ssh_keygen_prints_the_same_fingerprint(raw: bytes, tmp_path: Path):
    key = PublicKey(raw)
    file = tmp_path / "key.pub"
    file.write_text(f"{key.openssh} somebody\n")

    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", file], check=True, capture_output=True, text=True
    )

    assert shown.stdout.split()[1] == str(key.key_id)
