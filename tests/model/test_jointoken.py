"""The text of a join token: read back whole, and each typing error is told."""

from __future__ import annotations

import string
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh.errors import BadMessage
from aemesh.model.jointoken import JoinToken, is_token_id, token_id
from aemesh.model.key import KeyId

KEY = KeyId(bytes(range(32)))
TOKEN = JoinToken.of(KEY, "a2b3c4d5", bytes(range(100, 116)))
# By base32(1) and gzip's CRC-32: of 00…0f; of 64…73 and the sum of all three parts.
TEXT = "AEM1-AAAQEAYEAUDAOCAJBIFQYDIOB4-A2B3C4D5-MRSWMZ3INFVGW3DNNZXXA4LSOOX2P4K3"
BASE32 = string.ascii_uppercase + "234567"

tokens = st.builds(
    JoinToken,
    issuer=st.binary(min_size=16, max_size=16),
    id=st.binary(min_size=5, max_size=5).map(token_id),
    secret=st.binary(min_size=16, max_size=16),
)


def test_the_text_is_one_line_of_73_characters():
    assert str(TOKEN) == TEXT
    assert len(TEXT) == 73


@given(tokens)
def test_a_token_is_read_back_in_either_case(token: JoinToken):
    for text in (str(token), str(token).lower(), f"  {token}\r\n"):
        assert JoinToken.parse_untrusted(text) == token


@given(tokens, st.integers(0, 72), st.sampled_from(BASE32))
def test_one_wrong_character_is_a_typing_error(token: JoinToken, at: int, char: str):
    text = str(token)
    if text[at] in {char, "-"} or at < 4:
        return

    with pytest.raises(BadMessage, match="typing error"):
        JoinToken.parse_untrusted(text[:at] + char + text[at + 1 :])


@given(tokens, st.integers(5, 71))
def test_two_neighbours_in_the_wrong_order_are_a_typing_error(
    token: JoinToken, at: int
):
    text = str(token)
    first, second = text[at], text[at + 1]
    if first == second or "-" in {first, second}:
        return

    with pytest.raises(BadMessage, match="typing error"):
        JoinToken.parse_untrusted(text[:at] + second + first + text[at + 2 :])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a join token"),
        ("AEM2" + TEXT[4:], "expected a join token, AEM1-"),
        ("SHA256:abc", "expected a join token"),
        (TEXT.replace("-", ""), "expected a join token"),
        (TEXT[:40], "has 4 parts"),
        (TEXT + "-AA", "has 4 parts"),
        (TEXT[:-1], "its secret has 32 characters, this has 31"),
        (TEXT[:5] + TEXT[6:], "its issuer has 26 characters, this has 25"),
        (TEXT.replace("A2B3", "A2B"), "its id has 8 characters"),
        (TEXT.replace("A2B3", "A2B0"), "its id has a character that is none of"),
        (TEXT[:-1] + "1", "its secret has a character that is none of A-Z 2-7"),
        (TEXT[:-1] + "\N{FULLWIDTH LATIN CAPITAL LETTER G}", "none of A-Z 2-7"),
        (TEXT.replace("DIOB4", "DIOB5"), "its checksum does not fit"),  # stray bits
        (TEXT + "\nAEM1", "its secret has 32 characters, this has 37"),
    ],
)  # fmt: skip
def test_what_is_no_token_is_told_what_is_wrong(text: str, told: str):
    with pytest.raises(BadMessage, match=told):
        JoinToken.parse_untrusted(text)


@given(st.text(max_size=100) | st.text(BASE32 + "-", max_size=80).map("AEM1-".__add__))
def test_whatever_comes_it_is_a_token_or_a_bad_message(text: str):
    try:
        token = JoinToken.parse_untrusted(text)
    except BadMessage:
        return
    assert str(token) == text.strip().upper()


def test_it_pins_the_issuer_by_half_of_its_fingerprint():
    assert TOKEN.is_issuer(KEY)
    assert not TOKEN.is_issuer(KeyId(bytes(32)))
    last = KEY.digest[:15] + b"\xff" + KEY.digest[16:]
    assert not TOKEN.is_issuer(KeyId(last))
    assert TEXT.split("-")[1].lower() == KEY.label


@pytest.mark.parametrize(
    "id_",
    [
        "",
        "..",
        "../../x",
        "a2b3c4d",
        "A2B3C4D5",
        "a2b3c4d5\n",
        "a2b3c4d0",
        "\uff41" * 8,
    ],
)
def test_only_eight_letters_of_base32_are_an_id(id_: str):
    """Threat: 52: an id of a stranger is never a path."""
    assert not is_token_id(id_)
    with pytest.raises(ValueError, match="an id"):
        JoinToken.of(KEY, id_, bytes(16))


def test_nothing_of_the_secret_is_in_a_repr_or_an_error():
    """Threat: 93."""
    secret = TEXT.split("-")[3]
    shown = [repr(TOKEN), f"{TOKEN!r}", repr([TOKEN]), repr({"a": TOKEN})]
    for wrong in (
        TEXT[:-1],
        TEXT[:-1] + "0",
        TEXT[:-1] + "H",
        TEXT.replace("M1", "M2"),
    ):
        try:
            JoinToken.parse_untrusted(wrong)
        except BadMessage as error:
            shown.append("".join(traceback.format_exception(error)))
            shown.append(repr(error.fields()))

    assert len(shown) == 12
    text = "\n".join(shown).upper()
    assert secret[:8] not in text
    assert TOKEN.secret.hex().upper()[:8] not in text
    assert repr(TOKEN.secret).upper() not in text
