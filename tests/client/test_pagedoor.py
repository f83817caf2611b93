"""Who is let through to an engine's page, request by request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.client.pagedoor import Answer, Door, Pass

DOOR = Door(port=4321, token="t" * 43, cookie="c" * 43)
HOST = "Host: 127.0.0.1:4321"
COOKIE = f"Cookie: aemesh-4321={'c' * 43}"
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: x")


def judged(first: str, *fields: str) -> Pass | Answer:
    return DOOR.judge_untrusted("\r\n".join((first, *fields, "", "")).encode("latin-1"))


def test_the_link_gives_a_cookie_and_leads_to_an_address_without_the_secret() -> None:
    """Shows: E2."""
    target = DOOR.link.removeprefix("http://127.0.0.1:4321")
    answer = judged(f"GET {target} HTTP/1.1", HOST)

    assert isinstance(answer, Answer)
    text = answer.data.decode()
    assert text.startswith("HTTP/1.1 303 ")
    assert "\r\nLocation: /status\r\n" in text
    cookie = f"aemesh-4321={'c' * 43}; Path=/; HttpOnly; SameSite=Lax"
    assert f"\r\nSet-Cookie: {cookie}\r\n" in text
    assert "t" * 43 not in text
    assert "t" * 43 not in repr(DOOR)


def test_with_the_cookie_a_request_passes_without_it_and_for_itself_alone() -> None:
    """Shows: E2."""
    passed = judged("GET /status?a=1 HTTP/1.1", HOST, COOKIE, "Connection: keep-alive")

    head = b"GET /status?a=1 HTTP/1.1\r\nhost: 127.0.0.1:4321\r\nconnection: close"
    assert passed == Pass(head + b"\r\n\r\n", both_ways=False)


def test_a_websocket_of_the_page_itself_passes_both_ways() -> None:
    """Shows: E2."""
    origin = "Origin: http://127.0.0.1:4321"
    passed = judged("GET /status/ws HTTP/1.1", HOST, COOKIE, origin, *UPGRADE)

    assert isinstance(passed, Pass)
    assert passed.both_ways
    assert b"\r\nconnection: Upgrade\r\n" in passed.head
    assert b"c" * 43 not in passed.head


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        ("GET /status HTTP/1.1", (HOST,)),
        ("GET /status?token= HTTP/1.1", (HOST,)),
        (f"GET /status?token={'c' * 43} HTTP/1.1", (HOST,)),
        ("GET /status HTTP/1.1", (HOST, f"Cookie: aemesh-4321={'t' * 43}")),
        ("GET /status HTTP/1.1", (HOST, f"Cookie: aemesh-4322={'c' * 43}")),
        ("GET /status HTTP/1.1", (HOST, "Cookie: aemesh-4321=")),
        ("GET /status/ws HTTP/1.1", (HOST, *UPGRADE)),
        ("GET /status HTTP/1.1", (COOKIE,)),  # no host
        ("GET /status HTTP/1.1", ("Host: evil.example:4321", COOKIE)),  # leads here
        ("GET /status HTTP/1.1", ("Host: 127.0.0.1:4322", COOKIE)),
        ("GET /status HTTP/1.1", (HOST, COOKIE, "Origin: http://evil.example")),
        ("GET /status HTTP/1.1", (HOST, COOKIE, "Origin: null")),
        ("GET /ws HTTP/1.1", (HOST, COOKIE, "Origin: http://127.0.0.1:99", *UPGRADE)),
    ],
)
def test_nobody_else_is_let_in(first: str, fields: tuple[str, ...]) -> None:
    """Shows: E2."""
    answer = judged(first, *fields)

    assert isinstance(answer, Answer)
    assert answer.data.startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("first", "fields"),
    [
        ("POST /status HTTP/1.1", ()),
        ("GET http://127.0.0.1:4321/status HTTP/1.1", ()),
        ("GET /a b HTTP/1.1", ()),
        ("GET /status HTTP/1.0", ()),
        ("GET /status", ()),
        ("GET /status HTTP/1.1", ("Content-Length: 3",)),
        ("GET /status HTTP/1.1", ("Transfer-Encoding: chunked",)),
        ("GET /status HTTP/1.1", (HOST,)),  # twice
        ("GET /status HTTP/1.1", ("Host : x",)),
        ("GET /status HTTP/1.1", (" folded",)),
        ("GET /status HTTP/1.1", ("a: b\nc: d",)),
        ("GET /status HTTP/1.1", ("a: b\rc: d",)),
        ("GET /status HTTP/1.1", ("a: b\0",)),
    ],
)
def test_what_no_browser_says_is_refused(first: str, fields: tuple[str, ...]) -> None:
    """Shows: E2."""
    answer = judged(first, HOST, COOKIE, *fields)

    assert isinstance(answer, Answer)
    assert answer.data.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("target", ["//[", "//[x]/status", "/[", "/?a=%ff%00", "/#?"])
def test_an_address_that_cannot_be_read_is_judged_like_any_other(target: str) -> None:
    """Threat: 14; who has no link makes no thread of ours break."""
    answer = judged(f"GET {target} HTTP/1.1", HOST)

    assert isinstance(answer, Answer)
    assert answer.data.startswith(b"HTTP/1.1 403 ")
    passed = judged(f"GET {target} HTTP/1.1", HOST, COOKIE)
    assert isinstance(passed, Pass)
    assert passed.head.startswith(f"GET {target} HTTP/1.1\r\n".encode())


@given(st.binary(max_size=300))
def test_what_stands_in_a_request_only_the_cookie_opens(data: bytes) -> None:
    assert isinstance(DOOR.judge_untrusted(data + b"\r\n\r\n"), Answer)


@pytest.mark.parametrize("target", ["//evil.example/", "/\\evil.example", "///x"])
def test_the_link_leads_nowhere_else(target: str) -> None:
    """Shows: E2."""
    answer = judged(f"GET {target}?token={'t' * 43} HTTP/1.1", HOST)

    assert isinstance(answer, Answer)
    location = answer.data.decode().partition("Location: ")[2].partition("\r\n")[0]
    assert location.startswith("/")
    assert location[1:2] not in {"/", "\\"}
