"""authorized_masters and gss_principals: sshd's forms, read with suspicion."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.host.trust.authorizedlines import (
    parse_authorized_untrusted,
    parse_principal_untrusted,
)
from aemesh.host.trust.trustlines import RefusedLineError, VoidLine
from aemesh.host.trust.trustoptions import terms_words
from aemesh.model.key import PublicKey
from aemesh.model.trust import AuthorizedKey, Principal, Terms

KEY = PublicKey(b"\1" * 32)
K = KEY.openssh
LINES = [
    (K, Terms(), ""),
    (f"{K} alice@desk", Terms(), "alice@desk"),
    (f"  {K}\t alice at her desk ", Terms(), "alice at her desk"),
    (f'users="alice+render,bob" {K}', Terms(users=("alice", "render", "bob")), ""),
    (f'groups="*" {K} c', Terms(groups=("*",)), "c"),
    (
        f'from="192.0.2.0/24,!192.0.2.7",GROUPS="a"\t{K}',
        Terms(groups=("a",), sources=("192.0.2.0/24", "!192.0.2.7")),
        "",
    ),
    (f'expiry-time="20271231Z" {K}', Terms(expires_at=1_830_211_200.0), ""),
]


@pytest.mark.parametrize(("text", "terms", "comment"), LINES)
def test_a_line_authorizes_a_key_under_its_terms(text, terms, comment):
    assert parse_authorized_untrusted(text, 5) == AuthorizedKey(
        KEY.key_id, K, terms, comment=comment, line=5
    )


def test_an_authority_is_one_for_the_identities_that_its_line_names():
    text = 'cert-authority,principals="aemesh://lab/master/*,!aemesh://lab/master/x"'

    line = parse_authorized_untrusted(f'{text},users="render" {K}', 1)

    assert line == AuthorizedKey(
        KEY.key_id,
        K,
        Terms(users=("render",)),
        cert_authority=True,
        principals=("aemesh://lab/master/*", "!aemesh://lab/master/x"),
        line=1,
    )


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_keys_of_every_kind_are_authorized(kind: str, tmp_path: Path):
    file = tmp_path / "key"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file]
    subprocess.run([*argv, "-C", "a ca"], check=True)
    public = file.with_suffix(".pub")

    line = parse_authorized_untrusted(f"cert-authority {public.read_text()}", 1)

    listed = subprocess.run(
        ["ssh-keygen", "-l", "-f", public], check=True, capture_output=True, text=True
    )
    assert isinstance(line, AuthorizedKey)
    assert str(line.key_id) == listed.stdout.split()[1]
    assert line.comment == "a ca"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f'sandbox="bwrap" {K}', "unknown option"),
        (f"no-pty {K}", "unknown option"),
        (f'command="/bin/sh" {K}', "unknown option"),
        (f"restrict,users={K}", "NAME="),
        (f"users=alice {K}", "NAME="),
        (f"users {K}", "unknown option"),
        (f'users="" {K}', "empty item"),
        (f'users="alice",users="bob" {K}', "twice"),
        (f'users="alice",Users="bob" {K}', "twice"),
        (f'users="ali\\"ce" {K}', "no pattern"),
        (f'users="alice {K}', "NAME="),
        (f'users="alice", {K}', "NAME="),
        (f',users="alice" {K}', "NAME="),
        (f'users="alice"x {K}', "NAME="),
        (f'users="alice",,groups="a" {K}', "NAME="),
        (f'cert-authority="yes" {K}', "unknown option"),
        (f'principals="aemesh://lab/master/*" {K}', "needs cert-authority"),
        (f'cert-authority,principals="a," {K}', "empty item"),
        (f'from="lab.example.org" {K}', "no network"),
        (f'from="10.0.0.1/8" {K}', "no network"),
        (f'expiry-time="20271301" {K}', "no time"),
        (f'via="tofu" {K}', "unknown option"),
        (K[:-4], "unknown option"),
        ('users="alice"', "expected OPTIONS"),
        ('users="alice" ssh-ed25519', "not the base64"),
        ('users="alice" ssh-ed25519 AAAA', "not the base64"),
        (f'users="alice" {K.replace("ssh-ed25519", "ssh-rsa")}', "not the base64"),
        ("what is this", "unknown option"),
        ('"', "expected OPTIONS"),
        ("\udcff", ""),
    ],
)
def test_a_line_with_anything_unknown_authorizes_nobody(text: str, why: str):
    line = parse_authorized_untrusted(text, 3)

    assert isinstance(line, VoidLine)
    assert line.line == 3
    assert why in line.why
    assert line.why.isprintable()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("alice@R", Principal("alice@R", line=2)),
        (
            "  alice@EXAMPLE.ORG users=alice,bob groups=*  ",
            Principal(
                "alice@EXAMPLE.ORG", Terms(users=("alice", "bob"), groups=("*",)), 2
            ),
        ),
        ("host/lab-1.example.org@R", Principal("host/lab-1.example.org@R", line=2)),
        ("a@R expiry-time=19700101Z", Principal("a@R", Terms(expires_at=0.0), 2)),
        ("", None),
        ("# alice@R", None),
    ],
)
def test_a_principal_has_its_terms_after_it(text, expected):
    assert parse_principal_untrusted(text, 2) == expected


@pytest.mark.parametrize(
    "text",
    [
        "alice",
        "alice@",
        "alice@R@S",
        "*@R",
        "älice@R",
        "alice@R users",
        "alice@R users=",
        "alice@R users=a users=b",
        "alice@R via=tofu",
        "alice@R admin",
        "alice@R from=lab",
        "alice @R",
        "alice@R # a comment",
    ],
)
def test_a_principal_with_anything_unknown_is_nobody(text: str):
    assert isinstance(parse_principal_untrusted(text, 1), VoidLine)


PARSERS = [parse_authorized_untrusted, parse_principal_untrusted]


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("text", ["@revoked * x y", "  @", "@cert-authority a b c"])
def test_a_marker_where_none_can_be_refuses_the_file(parse, text):
    """Somebody meant to revoke a key: that must not be passed over."""
    with pytest.raises(RefusedLineError):
        parse(text, 1)


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("text", ["", " \t", "#", "  # @revoked"])
def test_comments_and_blank_lines_say_nothing(parse, text):
    assert parse(text, 1) is None


PIECES = [*'ab",\\= \t@#*+!/', K, "users=", '"from="', "groups"]
ODD = st.lists(st.sampled_from(PIECES)).map("".join)


@given(st.one_of(st.text(), ODD))
def test_any_text_is_a_line_or_is_refused(text: str):
    for parse in PARSERS:
        try:
            parse(text, 1)
        except RefusedLineError:
            assert text.strip().startswith("@")


@given(ODD)
def test_nothing_before_a_key_is_passed_over(before: str):
    """A line with something in front of its key has terms, or authorizes nobody."""
    line = parse_authorized_untrusted(f"x{before} {K}", 1)

    assert line is None or isinstance(line, VoidLine)


NAMES = st.lists(st.from_regex(r"!?[a-z*?]{1,9}", fullmatch=True), max_size=3)


@given(NAMES.map(tuple), NAMES.map(tuple), st.none() | st.integers(0, 2**33))
def test_terms_are_read_as_they_are_written(groups, users, at):
    terms = Terms(groups, (), users, None if at is None else float(at))
    words = [word.split("=", 1) for word in terms_words(terms)]
    options = ",".join(f'{name}="{value}"' for name, value in words)

    line = parse_authorized_untrusted(f"{options} {K}", 1)

    assert isinstance(line, AuthorizedKey)
    assert line.terms == terms
