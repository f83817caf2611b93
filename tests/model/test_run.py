"""Names of durable runs."""

from __future__ import annotations

import pytest

from aemesh.errors import BadMessage
from aemesh.model.run import run_key_untrusted


@pytest.mark.parametrize("key", ["a", "fits-v1", "_", "0.5:a@b+c=d-e", "k" * 128])
def test_a_key_is_of_these_letters(key: str) -> None:
    assert run_key_untrusted(key) == key


@pytest.mark.parametrize("key", ["", ".", "-", "a b", "a/b", "é", "k" * 129])
def test_another_key_is_refused_with_the_rule(key: str) -> None:
    with pytest.raises(BadMessage, match="the first of A-Z a-z 0-9 _"):
        run_key_untrusted(key)
