"""Join tokens on disk: private, bounded, and spent once however many come."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from aemesh import limits
from aemesh.errors import SettingsError, TrustFileError
from aemesh.host.trust import tokenfile, tokens
from aemesh.host.trust.tokens import TokenOffer, TokenRefusedError
from aemesh.model.jointoken import JoinToken
from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Reason, Role, Terms
from aemesh.policy.tokens import TokenUse

NOW = 1_800_000_000.0
ISSUER = KeyId(b"i" * 32)
HOUR = TokenOffer(valid_after=3600.0)
STRANGE_IDS = (
    "",
    ".",
    "..",
    "../../etc/passwd",
    "a2b3c4d5/../x",
    "A2B3C4D5",
    "a\0bcdefg",
)


def issue(folder: Path, offer: TokenOffer = HOUR, *, now: float = NOW) -> JoinToken:
    return tokens.issue(folder, offer, issuer=ISSUER, now=now)


def use(letter: str = "a", *, at: float = NOW + 1, name: str = "") -> TokenUse:
    return TokenUse(KeyId(letter.encode() * 32), NodeName(name or f"n-{letter}"), at)


def spend(folder: Path, id_: str, one: TokenUse, role: Role = Role.WORKER):
    return tokens.spend(folder, id_, one, role=role)


def refused(folder: Path, id_: str, one: TokenUse, role: Role = Role.WORKER) -> Reason:
    with pytest.raises(TokenRefusedError) as caught:
        spend(folder, id_, one, role)
    return caught.value.reason


def path_of(folder: Path, token: JoinToken) -> Path:
    return folder / "tokens" / f"{token.id}.json"


# --- what is kept -------------------------------------------------------------


def test_a_token_is_kept_with_all_that_it_allows(tmp_path: Path):
    values = {"expires_at": NOW + 9e6}
    fields = {
        f.name: values.get(f.name, ("x*", "!y")) for f in dataclasses.fields(Terms)
    }
    offer = TokenOffer(
        valid_after=60.0, count=3, terms=Terms(**fields), names=("office-*",)
    )

    token = issue(tmp_path, offer)

    (record,) = tokens.list_tokens(tmp_path)
    assert record == tokens.read_token_untrusted(tmp_path, token.id)
    assert token.is_issuer(ISSUER)
    assert (record.id, record.role, record.count) == (token.id, Role.WORKER, 3)
    assert (record.issued_at, record.expires_at) == (NOW, NOW + 60.0)
    assert (record.terms, record.names) == (offer.terms, offer.names)
    assert (record.used_by, record.revoked) == ((), False)
    assert tokens.secret_untrusted(tmp_path, token.id) == token.secret


def test_each_token_has_its_own_id_and_secret(tmp_path: Path):
    made = [issue(tmp_path) for _ in range(20)]

    assert len({token.id for token in made}) == 20
    assert len({token.secret for token in made}) == 20
    assert {record.id for record in tokens.list_tokens(tmp_path)} == {
        token.id for token in made
    }


def test_only_we_can_read_it_whatever_the_umask(tmp_path: Path):
    before = os.umask(0)
    try:
        path = path_of(tmp_path, issue(tmp_path))
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_where_there_are_no_tokens_nothing_is_made(tmp_path: Path):
    assert tokens.list_tokens(tmp_path) == ()
    assert tokens.secret_untrusted(tmp_path, "a2b3c4d5") is None
    assert not tokens.revoke_token(tmp_path, "a2b3c4d5")
    assert refused(tmp_path, "a2b3c4d5", use()) is Reason.TOKEN_UNKNOWN

    assert list(tmp_path.iterdir()) == []


def test_what_ended_long_ago_is_removed_and_what_ended_lately_is_still_told(
    tmp_path: Path,
):
    late = NOW + limits.TOKEN_KEPT_AFTER
    old, recent = issue(tmp_path), issue(tmp_path, now=late)

    issue(tmp_path, now=late + 3601.0)

    assert not path_of(tmp_path, old).exists()
    assert refused(tmp_path, old.id, use(at=late + 3601.0)) is Reason.TOKEN_UNKNOWN
    assert refused(tmp_path, recent.id, use(at=late + 3601.0)) is Reason.TOKEN_EXPIRED


def test_there_are_so_many_tokens_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(limits, "TOKENS", 3)
    made = [issue(tmp_path, now=NOW + n) for n in range(3)]

    with pytest.raises(SettingsError, match="3 join tokens can be used already"):
        issue(tmp_path, now=NOW + 3)

    assert len(tokens.list_tokens(tmp_path)) == 3
    tokens.revoke_token(tmp_path, made[1].id)
    issue(tmp_path, now=NOW + 4)
    assert len(tokens.list_tokens(tmp_path)) == 3
    assert tokens.read_token_untrusted(tmp_path, made[1].id) is None
    assert tokens.read_token_untrusted(tmp_path, made[0].id) is not None


def test_a_record_with_every_use_fits_in_its_file(tmp_path: Path):
    offer = TokenOffer(valid_after=3600.0, count=limits.TOKEN_COUNT)
    token = issue(tmp_path, offer)
    data = json.loads(path_of(tmp_path, token).read_text())
    data["used_by"] = [
        {"key": str(KeyId(n.to_bytes(32, "big"))), "name": "n" * 64, "at": NOW + n / 7}
        for n in range(limits.TOKEN_COUNT - 1)
    ]
    path_of(tmp_path, token).write_text(json.dumps(data))

    record = spend(tmp_path, token.id, use())

    assert len(record.used_by) == limits.TOKEN_COUNT
    assert tokens.read_token_untrusted(tmp_path, token.id) == record
    assert refused(tmp_path, token.id, use("b")) is Reason.TOKEN_SPENT


# --- how it is spent ----------------------------------------------------------


def test_a_token_introduces_as_many_keys_as_it_says(tmp_path: Path):
    """Threat: 52. Shows: T6."""
    token = issue(tmp_path, TokenOffer(valid_after=60.0, count=2))

    spend(tmp_path, token.id, use("a"))
    record = spend(tmp_path, token.id, use("b"))

    assert record.used_by == (use("a"), use("b"))
    assert refused(tmp_path, token.id, use("c")) is Reason.TOKEN_SPENT
    assert tokens.list_tokens(tmp_path) == (record,)


def test_who_used_it_may_again_and_is_not_counted_twice(tmp_path: Path):
    token = issue(tmp_path)
    first = spend(tmp_path, token.id, use("a"))

    assert spend(tmp_path, token.id, use("a", at=NOW + 9)) == first


@pytest.mark.parametrize(
    ("offer", "one", "role", "reason"),
    [
        (HOUR, use(at=NOW + 3600.0), Role.WORKER, Reason.TOKEN_EXPIRED),
        (HOUR, use(), Role.MASTER, Reason.TOKEN_ROLE),
        (
            TokenOffer(valid_after=60.0, names=("lab-*",)),
            use(),
            Role.WORKER,
            Reason.TOKEN_NAME,
        ),
    ],
)
def test_what_a_token_does_not_allow_is_refused_and_not_counted(
    tmp_path: Path, offer: TokenOffer, one: TokenUse, role: Role, reason: Reason
):
    """Threat: 52: expired, for the other role, of another name."""
    token = issue(tmp_path, offer)

    assert refused(tmp_path, token.id, one, role) is reason
    assert tokens.list_tokens(tmp_path)[0].used_by == ()


def test_a_revoked_token_is_refused_and_stays_in_the_list(tmp_path: Path):
    """Threat: 52."""
    token = issue(tmp_path, TokenOffer(valid_after=60.0, count=2))
    spend(tmp_path, token.id, use("a"))

    assert tokens.revoke_token(tmp_path, token.id)

    assert refused(tmp_path, token.id, use("a")) is Reason.REVOKED
    (record,) = tokens.list_tokens(tmp_path)
    assert record.revoked
    assert record.used_by == (use("a"),)


@pytest.mark.parametrize("id_", [*STRANGE_IDS, "zzzzzzzz"])
def test_a_guessed_id_is_unknown_and_never_a_path(tmp_path: Path, id_: str):
    """Threat: 52."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    token = issue(folder)
    for place in (tmp_path, folder):
        (place / "x.json").write_bytes(path_of(folder, token).read_bytes())

    assert refused(folder, id_, use()) is Reason.TOKEN_UNKNOWN
    assert tokens.secret_untrusted(folder, id_) is None
    assert tokens.read_token_untrusted(folder, id_) is None
    assert not tokens.revoke_token(folder, id_)
    assert tokens.list_tokens(folder)[0].used_by == ()


SPENDER = """
import sys
from pathlib import Path
from aemesh.errors import RefusedError
from aemesh.host.trust.tokens import spend
from aemesh.model.key import KeyId
from aemesh.model.names import NodeName
from aemesh.model.trust import Role
from aemesh.policy.tokens import TokenUse

folder, token_id, number, now = sys.argv[1:]
use = TokenUse(KeyId(bytes([int(number)]) * 32), NodeName("n"), float(now))
print("ready", flush=True)
sys.stdin.read()
try:
    spend(Path(folder), token_id, use, role=Role.WORKER)
except RefusedError as error:
    print(error.reason.value)
else:
    print("won")
"""


@pytest.mark.parametrize(("count", "comers"), [(1, 2), (3, 8)])
def test_of_those_who_come_at_once_as_many_win_as_may(
    tmp_path: Path, count: int, comers: int
):
    """Threat: 52: processes of their own, two at once: one wins."""
    token = issue(tmp_path, TokenOffer(valid_after=3600.0, count=count))
    spenders = [
        subprocess.Popen(
            [sys.executable, "-c", SPENDER, tmp_path, token.id, str(n), str(NOW)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(comers)
    ]
    for one in spenders:
        assert one.stdout.readline() == "ready\n"

    for one in spenders:
        one.stdin.close()

    said = [one.stdout.read().strip() for one in spenders]
    for one in spenders:
        one.stdout.close()
        assert one.wait() == 0
    assert sorted(said) == ["token-spent"] * (comers - count) + ["won"] * count
    (record,) = tokens.list_tokens(tmp_path)
    winners = {bytes([n]) * 32 for n, word in enumerate(said) if word == "won"}
    assert {one.key_id.digest for one in record.used_by} == winners


def test_what_cannot_be_written_down_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    token = issue(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokenfile, "write_whole", full)

    with pytest.raises(TrustFileError, match="cannot be written: No space left"):
        spend(tmp_path, token.id, use())
    assert tokens.list_tokens(tmp_path)[0].used_by == ()


# --- what others did to it ----------------------------------------------------


def test_a_record_that_others_can_read_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    token = issue(tmp_path)
    path_of(tmp_path, token).chmod(0o640)

    assert tokens.secret_untrusted(tmp_path, token.id) is None
    assert refused(tmp_path, token.id, use()) is Reason.TOKEN_UNKNOWN
    assert f"{path_of(tmp_path, token)} is not used" in caplog.text


def test_a_link_to_a_record_is_not_used(tmp_path: Path):
    token = issue(tmp_path)
    path_of(tmp_path, token).rename(tmp_path / "away.json")
    path_of(tmp_path, token).symlink_to(tmp_path / "away.json")

    assert tokens.secret_untrusted(tmp_path, token.id) is None
    assert tokens.list_tokens(tmp_path) == ()


def test_a_folder_that_others_can_write_is_told_to_us_and_not_to_strangers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    token = issue(tmp_path)
    (tmp_path / "tokens").chmod(0o777)

    assert tokens.secret_untrusted(tmp_path, token.id) is None
    assert "join tokens are not used" in caplog.text
    for change in (
        lambda: tokens.list_tokens(tmp_path),
        lambda: tokens.revoke_token(tmp_path, token.id),
        lambda: spend(tmp_path, token.id, use()),
        lambda: issue(tmp_path),
    ):
        with pytest.raises(TrustFileError, match="not safe"):
            change()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data | {"only_on": "monday"},
        lambda data: data | {"terms": data["terms"] | {"only_on": "monday"}},
        lambda data: data | {"secret": "00"},
        lambda data: data | {"secret": "xyz"},
        lambda data: data | {"role": "king"},
        lambda data: data | {"count": "1"},
        lambda data: data | {"used_by": [{"key": "x", "name": "n", "at": 0}]},
        lambda data: [],
        lambda data: "x" * limits.TOKEN_FILE_BYTES,
    ],
)
def test_a_record_with_what_we_do_not_know_is_not_used_nor_quoted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change
):
    """Threat: 93."""
    token = issue(tmp_path)
    path = path_of(tmp_path, token)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))

    assert tokens.secret_untrusted(tmp_path, token.id) is None
    assert tokens.list_tokens(tmp_path) == ()
    assert "no record of a join token" in caplog.text
    assert token.secret.hex() not in caplog.text


def test_the_secret_is_in_no_repr_error_or_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Threat: 93."""
    caplog.set_level(logging.DEBUG)
    token = issue(tmp_path)
    spend(tmp_path, token.id, use("a"))
    with pytest.raises(TokenRefusedError) as caught:
        spend(tmp_path, token.id, use("b"))
    kept = tokenfile.read_kept(tmp_path / "tokens", token.id)
    assert kept is not None
    shown = [
        repr(kept),
        repr(tokens.list_tokens(tmp_path)),
        repr(msgspec.json.decode(
            path_of(tmp_path, token).read_bytes(), type=tokenfile._TokenFile
        )),
        repr(caught.value.fields()),
        str(caught.value),
        caplog.text,
    ]  # fmt: skip

    text = "\n".join(shown)
    assert token.id in text
    assert token.secret.hex() not in text
    assert repr(token.secret) not in text
    assert str(token)[-32:] not in text.upper()


def test_a_message_names_the_token_and_who_came(tmp_path: Path):
    token = issue(tmp_path)
    spend(tmp_path, token.id, use("a"))

    with pytest.raises(TokenRefusedError) as caught:
        spend(tmp_path, token.id, use("b"))

    what = f'join token "{token.id}" does not let n-b {use("b").key_id} in'
    assert str(caught.value) == f"{what}: it was used as often as it may be"
    assert caught.value.exit_code == 4
