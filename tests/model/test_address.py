"""Addresses as others write them."""

from __future__ import annotations

import pytest

from aemesh.errors import BadMessage
from aemesh.model.address import Address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("10.0.0.1:7472", Address("10.0.0.1", 7472)),
        ("[fe80::1%eth0]:7472", Address("fe80::1%eth0", 7472)),
        ("[FE80:0::1]:65535", Address("fe80::1", 65535)),
    ],
)
def test_an_address_is_read_and_written_in_one_spelling(
    text: str, address: Address
) -> None:
    assert Address.parse_untrusted(text) == address
    assert Address.parse_untrusted(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:+1",
        "office-1:7472",
        "[fe80::1]",
        "[fe80::1%\x1b[2J]:7472",
        "[fe80::1%a\nb]:7472",
    ],
)
def test_what_is_no_address_or_writes_to_a_terminal_is_refused(text: str) -> None:
    with pytest.raises(BadMessage) as caught:
        Address.parse_untrusted(text)

    assert caught.value.what.isprintable()
