"""What Kerberos says, in our words; and that aemesh says how to get it."""

from __future__ import annotations

import sys

import pytest

from aemesh.errors import SettingsError
from aemesh.model.names import NodeName
from aemesh.net import gss, gss_reasons

# The general failure of RFC 2744, under which MIT tells a code of its own.
FAILURE = 13 << 16


@pytest.mark.parametrize(
    ("major", "minor", "said"),
    [
        (FAILURE, 2529638944, "its ticket has expired"),
        (FAILURE, 2529638946, "its token was used before"),
        (4 << 16, 100001, "its token is bound to another connection than this one"),
        (9 << 16, 0, "it sent no Kerberos token"),
        (7 << 16, 39756033, "our keytab has no key of this name"),
    ],
)
def test_an_error_is_told_by_its_minor_code_or_else_its_major_one(major, minor, said):
    assert gss_reasons.told(gss_reasons.ACCEPTOR, major, minor).why == said


def test_an_error_that_is_in_no_table_is_left_to_the_library():
    assert gss_reasons.told(gss_reasons.ACCEPTOR, FAILURE, 12345) is None


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("office-1", "aemesh/office-1"),
        ("host.example.org", "aemesh/host.example.org"),
        ("office@OTHER.EXAMPLE", "aemesh/office\\@OTHER.EXAMPLE"),
    ],
)
def test_a_name_chooses_no_realm_of_its_own(name, service):
    assert gss.service_of(NodeName(name)) == service


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch):
    # What an import of None does: as if it were not there.
    monkeypatch.setitem(sys.modules, "gssapi", None)

    with pytest.raises(SettingsError, match="needs the package gssapi") as caught:
        gss.initiator(target="aemesh/office-1", binding=b"")

    assert "pip install 'aemesh[gssapi]'" in caught.value.hint
