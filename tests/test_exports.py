"""What `aemesh` offers to those who import it."""

from __future__ import annotations

import importlib.metadata

import pytest

import aemesh

PUBLIC = [
    "AemeshError",
    "Group",
    "Mesh",
    "__version__",
    "checkpoint",
    "connect",
    "leaving_after",
    "resume",
]


def test_the_public_names_are_these():
    assert sorted(aemesh.__all__) == sorted(PUBLIC)
    assert set(PUBLIC) <= set(dir(aemesh))


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there(name: str):
    assert getattr(aemesh, name)


def test_the_version_is_the_installed_one():
    assert aemesh.__version__ == importlib.metadata.version("aemesh")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        _ = aemesh.nothing
