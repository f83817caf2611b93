"""Who may see an engine's page through a port of ours: whoever has the link, only.

A port on loopback is open to every user of the machine, and to every page that a
browser here shows.  So each request is judged, and not each connection, for a browser
sends those of several pages over one:

- it has the secret of the link, or the cookie that was given for that;
- it names us as we are (`Host`): a foreign name that leads here is an attack;
- no other page makes it (`Origin`), which is what guards websockets;
- it only reads (GET), and has nothing behind its head.

What is passed on has neither secret nor cookie, and closes its connection behind it, so
that the next request comes to be judged, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hmac import compare_digest
from urllib.parse import parse_qsl, urlencode

# A browser's head has one or two kilobytes, and bokeh puts a token of one into it.
HEAD_BYTES = 32 * 1024
TOKEN = "token"  # noqa: S105 - the name of it
_REQUEST = re.compile(r"(GET|HEAD) (/[\x21-\x7e]*) HTTP/1\.1")
_FIELD = re.compile(
    r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*"
)
# What is said once, or means that something comes behind the head.
_ONCE = ("host", "origin", "upgrade", "connection", "sec-websocket-key")
_BODY = ("content-length", "transfer-encoding", "expect")
_OURS = ("cookie", "connection")


@dataclass(frozen=True, slots=True)
class Pass:
    """What the page is to hear; `both_ways` if it goes on as a websocket."""

    head: bytes
    both_ways: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the door says itself."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Door:
    """The judge of requests at one port, with the secrets of one link."""

    port: int
    token: str = field(repr=False)
    cookie: str = field(repr=False)

    @property
    def link(self) -> str:
        """The link that opens the page: whoever has it may see it."""
        return f"http://127.0.0.1:{self.port}/status?{TOKEN}={self.token}"

    def judge_untrusted(self, head: bytes) -> Pass | Answer:
        """Judge one request by its head, with the empty line behind it."""
        lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        request = _REQUEST.fullmatch(lines[0])
        parsed = [_FIELD.fullmatch(line) for line in lines[1:]]
        if request is None or not all(parsed):
            return _answer(400, "this is no request that a browser makes to see a page")
        fields = [(one[1].lower(), one[2]) for one in parsed if one is not None]
        names = [name for name, _ in fields]
        if any(names.count(name) > 1 for name in _ONCE) or set(_BODY) & set(names):
            return _answer(400, "this is no request that a browser makes to see a page")
        return self._judge(request, dict(fields), fields)

    def _judge(
        self,
        request: re.Match[str],
        named: dict[str, str],
        fields: list[tuple[str, str]],
    ) -> Pass | Answer:
        hosts = (f"127.0.0.1:{self.port}", f"localhost:{self.port}")
        host, origin = named.get("host", ""), named.get("origin")
        if host not in hosts or origin not in (None, f"http://{host}"):
            return _answer(403, "another page asked for this one")
        # Not `urlsplit`, which takes "//[" for the beginning of an address, and raises.
        path, _, asked = request[2].partition("?")
        query = parse_qsl(asked, keep_blank_values=True)
        if any(name == TOKEN and self._is_token(value) for name, value in query):
            kept = urlencode([one for one in query if one[0] != TOKEN])
            return self._welcome(path + (f"?{kept}" if kept else ""))
        if not self._has_cookie(fields):
            return _answer(
                403, "this page is for whoever has its link, as it was shown"
            )
        upgrades = named.get("upgrade", "").lower() == "websocket"
        kept_fields = [one for one in fields if one[0] not in _OURS]
        kept_fields.append(("connection", "Upgrade" if upgrades else "close"))
        lines = [f"{request[1]} {request[2]} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in kept_fields]
        return Pass("\r\n".join((*lines, "", "")).encode("latin-1"), upgrades)

    def _welcome(self, target: str) -> Answer:
        """Give the cookie, and lead to the page without the secret in its address."""
        # One slash: two, or one of either kind, would lead to another host.
        location = "/" + target.lstrip("/\\")
        cookie = f"{self._name}={self.cookie}; Path=/; HttpOnly; SameSite=Lax"
        return _answer(303, "", f"Location: {location}", f"Set-Cookie: {cookie}")

    @property
    def _name(self) -> str:
        # Cookies know no ports: several doors of one machine share a jar.
        return f"aemesh-{self.port}"

    def _is_token(self, value: str) -> bool:
        return compare_digest(value.encode(), self.token.encode())

    def _has_cookie(self, fields: list[tuple[str, str]]) -> bool:
        given = (value for name, value in fields if name == "cookie")
        pairs = (
            one.strip().partition("=") for text in given for one in text.split(";")
        )
        return any(
            name == self._name
            and compare_digest(value.encode("latin-1"), self.cookie.encode())
            for name, _, value in pairs
        )


def failure(text: str) -> bytes:
    """Return the answer for a page that cannot be shown now."""
    return _answer(503, text).data


def _answer(code: int, text: str, *fields: str) -> Answer:
    words = {303: "See Other", 400: "Bad Request", 403: "Forbidden"}
    body = f"{text}\n".encode()
    lines = (
        f"HTTP/1.1 {code} {words.get(code, 'Service Unavailable')}",
        *fields,
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Referrer-Policy: no-referrer",
        "Connection: close",
    )
    return Answer("\r\n".join((*lines, "", "")).encode("latin-1") + body)
