"""Everything that decodes what a stranger sends, or what stands in a file by hand.

A target takes bytes and raises nothing: what its decoder may raise it catches, and
it tells whether anything was taken.  It asserts more than that it lives: what was
decoded encodes to the same, bytes in pieces come to the same as all at once, no reader
keeps more than one frame, and no error says a stranger's words as they are.

`tests/fuzz/test_targets.py` gives each some inputs of hypothesis and all that once
broke one; ``make fuzz`` gives them millions, by coverage.  A new target is one line
here.  Its first seed must be taken: else all that it shows is that nothing gets in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aemesh.protocol.frames import encode_frame
from aemesh.protocol.parcel import pack
from tests.fuzz import before_tls, lines, talks


@dataclass(frozen=True)
class Target:
    """A decoder; `share` of the runs of ``make fuzz`` go to it."""

    run: Callable[[bytes], bool]
    share: int = 10
    # Of most targets no bytes at all are an honest input: see `Cutter`.
    seeds: tuple[bytes, ...] = (b"",)


WORDS = tuple(word.encode() for word in lines.HONEST_WORDS)
JSON = (b'{"a": [1, 2.5, "\\u00e9", null]}', b"[[[[0]]]]", b'"\\ud83d\\ude00"')

TARGETS: dict[str, Target] = {
    "preamble": Target(before_tls.preamble, 10, (before_tls.PREAMBLE,)),
    "broken_preamble": Target(before_tls.broken_preamble),
    "certificate": Target(before_tls.certificate),
    "chains": Target(before_tls.chains, 4),
    "proxies": Target(before_tls.proxies, 8),
    "delegated": Target(before_tls.delegated, 4),
    "requests": Target(before_tls.requests, 4),
    "pem_files": Target(before_tls.pem_files, 4),
    "frames": Target(talks.frames, 10, (encode_frame(b"x", limit=9) * 3,)),
    "strict_json": Target(talks.strict_json, 14, JSON),
    "messages": Target(talks.messages, 12),
    "hello": Target(talks.hello),
    "handshake": Target(talks.handshake, 6),
    "proofs": Target(talks.proofs, 6),
    "rotations": Target(talks.rotations, 4),
    "session": Target(talks.session, 6),
    "streams": Target(talks.streams),
    "questions": Target(talks.questions, 6, (pack(b'{"t": "whoami"}'),)),
    "announcement": Target(lines.announcement, 6),
    "words": Target(lines.words, 8, WORDS),
    "broken_words": Target(lines.broken_words),
    "join_tokens": Target(lines.join_tokens),
    "trust_lines": Target(lines.trust_lines, 12),
    "authorized_lines": Target(lines.authorized_lines),
    "principal_lines": Target(lines.principal_lines, 4),
    "terms": Target(lines.terms),
    "request_files": Target(lines.request_files, 6),
    "token_files": Target(lines.token_files, 6),
    "control_bodies": Target(lines.control_bodies, 4),
    "dask_lines": Target(lines.dask_lines, 4),
}

# What no mutation of bytes comes upon: each a word of libFuzzer's dictionary.
DICTIONARY = "".join(
    f'"{word}"\n'
    for word in (
        *(
            "@revoked",
            "@cert-authority",
            "ssh-ed25519 ",
            "SHA256:",
            "AEM1-",
            "aemesh://",
        ),
        *("from=", "groups=", "expiry-time=", "users=", "via=", "last=", "mode="),
        *(
            "NaN",
            "1e999",
            "\\\\ud800",
            "\\xEF\\xBB\\xBF",
            "\\x1b[",
            "\\xFF\\xFF\\xFF\\xFF",
        ),
    )
)
