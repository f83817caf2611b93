"""The options that every trust file has in common."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import BadMessage
from aemesh.host.trust.trustoptions import (
    day_untrusted,
    expiry_untrusted,
    principals_untrusted,
    terms_untrusted,
    terms_words,
)
from aemesh.model.trust import Terms


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("19700101Z", 0),
        ("197001010001Z", 60),
        ("19700101000001Z", 1),
        ("20271231Z", 1_830_211_200),
        ("20271231", 1_830_211_200 - 3600),
        ("20270701", 1_814_400_000 - 7200),  # summer time
        ("202712312359", 1_830_211_200 + 86_340 - 3600),
        ("20280229Z", 1_835_395_200),
    ],
)
@pytest.mark.usefixtures("berlin")
def test_a_time_is_local_unless_z(text: str, at: int):
    """As sshd(8) has it."""
    assert expiry_untrusted(text) == at


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Z",
        "2027",
        "20271301Z",
        "20270229Z",
        "00000101Z",
        "202712312460Z",
        "20271231245959Z",
        "2027123123Z",
        "20271231z",
        "20271231+0100",
        "2027-12-31",
        " 20271231",
        "٢٠٢٧١٢٣١",
        "forever",
    ],
)
def test_what_is_no_time_is_refused(text: str):
    with pytest.raises(BadMessage):
        expiry_untrusted(text)


@pytest.mark.parametrize("text", ["", "20270229", "2027", "20271231Z", "00000101"])
def test_what_is_no_day_is_refused(text: str):
    with pytest.raises(BadMessage):
        day_untrusted(text)


@pytest.mark.parametrize(
    "text",
    [
        "192.0.2.0/24",
        "192.0.2.7",
        "!192.0.2.7",
        "192.0.2.*,10.?.0.1",
        "2001:db8::/32,!fe80::*",
        "*",
    ],
)
def test_a_source_is_a_network_an_address_or_a_pattern(text: str):
    assert terms_untrusted({"from": text}).sources == tuple(text.split(","))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "!!10.0.0.0/8",
        "10.0.0.1/8",  # one machine, or sixteen million?
        "10.0.0.0/33",
        "10.0.0",
        "010.0.0.1",
        "lab.example.org",
        "*.example.org",
        "FE80::*",
        "fe80::1%eth0",
        "10.0.0.0/8,,",
        "10.0.0.0/8 11.0.0.0/8",
        "[::1]",
    ],
)
def test_what_is_no_source_is_refused(text: str):
    with pytest.raises(BadMessage):
        terms_untrusted({"from": text})


@pytest.mark.parametrize("name", ["groups", "users"])
@pytest.mark.parametrize(
    "text", ["", ",", "a,", "a b", "a+b", "a,,b", "[ab]", "ä", '"']
)
def test_what_is_no_list_of_names_is_refused(name: str, text: str):
    with pytest.raises(BadMessage):
        terms_untrusted({name: text})


@pytest.mark.parametrize(
    "text", ["", "aemesh://lab/master/*,", "a b", "aemesh://[lab]", "a\\b", "ä"]
)
def test_what_is_no_list_of_principals_is_refused(text: str):
    with pytest.raises(BadMessage):
        principals_untrusted(text)


def test_terms_are_written_in_one_order():
    terms = Terms(("a", "!b"), ("10.0.0.0/8",), ("u",), 1_830_211_200.0)

    assert terms_words(terms) == [
        "groups=a,!b",
        "from=10.0.0.0/8",
        "expiry-time=20271231000000Z",
        "users=u",
    ]
    assert terms_words(Terms()) == []


OPTION = st.sampled_from(["groups", "from", "users", "expiry-time", "via"])


@given(st.dictionaries(OPTION, st.text()))
def test_any_options_are_terms_or_are_refused(options: dict[str, str]):
    try:
        terms = terms_untrusted(options, separators=",+")
    except BadMessage:
        return
    words = dict(word.split("=", 1) for word in terms_words(terms))
    assert terms_untrusted(words) == terms


@given(st.text())
def test_any_text_is_a_list_of_principals_or_is_refused(text: str):
    try:
        found = principals_untrusted(text)
    except BadMessage:
        return
    assert ",".join(found) == text
