"""known_workers and known_masters: OpenSSH's shape, read with suspicion."""

from __future__ import annotations

import logging
import os
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aemesh import limits
from aemesh.errors import (
    BadMessage,
    KeyChangedError,
    RefusedError,
    TrustFileError,
)
from aemesh.host.trustfiles import (
    TrustFolder,
    add,
    forget,
    read_book,
    revoke,
)
from aemesh.host.trustlines import (
    RefusedLineError,
    VoidLine,
    known_line,
    parse_line_untrusted,
    revoked_line,
)
from aemesh.model.key import PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import KnownPeer, Mode, RevokedKey, Role
from aemesh.testing.lab_needs import has_many_users

if TYPE_CHECKING:
    from pathlib import Path


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def peer(name: str = "lab-3", number: int = 3) -> KnownPeer:
    return KnownPeer(NodeName(name), key(number), via="tofu", added="20261120")


def revoked(comment: str, *, line: int) -> RevokedKey:
    return RevokedKey(key(9).key_id, key(9).openssh, comment, line)


LINE = f"lab-3 {key(3).openssh} via=tofu added=20261120 mode=leap proto=1"


def write(folder: Path, *lines: str) -> Path:
    path = folder / "known_workers"
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o600)
    return path


# --- lines ------------------------------------------------------------------


def test_a_line_says_what_is_known_of_a_peer():
    assert parse_line_untrusted(LINE, 7) == replace(peer(), line=7)
    assert known_line(peer()) == LINE


@pytest.mark.parametrize("text", ["", "   ", "# comment", "  # comment", "#lab-3 x y"])
def test_comments_and_blank_lines_say_nothing(text: str):
    assert parse_line_untrusted(text, 1) is None


def test_a_line_written_by_hand_needs_no_options():
    entry = parse_line_untrusted(f"lab-3 {key(3).openssh}", 1)

    assert isinstance(entry, KnownPeer)
    assert (entry.via, entry.mode) == ("hand", Mode.LEAP)


@pytest.mark.parametrize(
    "text",
    [
        LINE + " form=10.0.0.0/8",
        LINE + " my favourite",
        LINE + " via=tofu",
        LINE.replace("mode=leap", "mode=lep"),
        LINE.replace("mode=leap", "MODE=leap"),
        LINE.replace("added=20261120", "added=tomorrow"),
        LINE.replace("added=20261120", "added=٢٠٢٦١١٢٠"),
        LINE.replace("proto=1", "proto="),
        LINE.replace("lab-3", "lab-3,lab-4"),
        LINE.replace("lab-3", "*"),
        LINE.replace("lab-3", "läb"),
        LINE.replace("ssh-ed25519", "ssh-rsa"),
        LINE.replace("AAAAC3", "AAAAC4"),
        LINE.replace(key(3).openssh, "ssh-ed25519"),
        "lab-3",
    ],
)
def test_a_line_with_anything_unknown_trusts_nobody(text: str):
    assert isinstance(parse_line_untrusted(text, 4), VoidLine)


def test_a_revoked_key_is_read_with_its_comment():
    text = f"@revoked * {key(9).openssh} stolen laptop"

    entry = parse_line_untrusted(text, 2)

    assert entry == revoked("stolen laptop", line=2)


@pytest.mark.parametrize(
    "text",
    [
        "@revoked",
        "@revoked * ssh-ed25519",
        "@revoked * ssh-ed25519 AAAA",
        f"@revokd * {key(9).openssh}",
        f"@Revoked * {key(9).openssh}",
        f"@ revoked * {key(9).openssh}",
    ],
)
def test_a_marked_line_that_cannot_be_read_refuses_the_file(text: str):
    with pytest.raises(RefusedLineError):
        parse_line_untrusted(text, 2)


def test_a_certificate_authority_is_kept_for_later():
    text = "@cert-authority lab ecdsa-sha2-nistp256 AAAA site CA"

    assert parse_line_untrusted(text, 1) is None


@pytest.mark.parametrize(
    ("name", "via"),
    [
        ("lab-3\nevil", "tofu"),
        ("lab-3", "tofu\nevil ssh-ed25519 AAAA"),
        ("lab-3\r", "tofu"),
        ("lab-3", "tofu mode=x509"),
        ("lab 3", "tofu"),
        ("lab-3\u2028", "tofu"),
        ("@revoked", "tofu"),
        ("@cert-authority", "tofu"),
        ("@me", "tofu"),
        ("#lab", "tofu"),
        ("", "tofu"),
        ("lab-3", ""),
    ],
)
def test_a_peer_cannot_smuggle_a_second_word_or_line(name: str, via: str):
    with pytest.raises(BadMessage):
        known_line(replace(peer(), name=NodeName(name), via=via))


def test_the_comment_of_a_revoked_key_stays_in_its_line():
    text = revoked_line(
        key(9).openssh, "lost\nlab-6 ssh-ed25519 AAAA\r\x1b[31m" + "x" * 999
    )

    assert text.isprintable()
    assert parse_line_untrusted(text, 1) == revoked(
        ("lost lab-6 ssh-ed25519 AAAA [31m" + "x" * 999)[:200], line=1
    )


@given(st.text())
def test_any_text_is_a_line_or_is_refused(text: str):
    try:
        entry = parse_line_untrusted(text, 1)
    except RefusedLineError:
        assert text.lstrip().startswith("@")
    else:
        assert not isinstance(entry, KnownPeer)


@given(st.sampled_from(["via", "added", "last", "mode", "proto", "from"]), st.text())
def test_any_option_keeps_the_line_one_line(option: str, value: str):
    entry = parse_line_untrusted(f"lab-3 {key(3).openssh} {option}={value}", 1)

    if isinstance(entry, KnownPeer):
        assert "\n" not in entry.via


@given(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(Mode),
)
def test_what_is_written_is_read_back(name: str, raw: bytes, mode: Mode):
    one = KnownPeer(NodeName(name), PublicKey(raw), "sas", "20261120", mode)

    assert parse_line_untrusted(known_line(one), 0) == one


# --- files ------------------------------------------------------------------


def test_without_a_file_nobody_is_known(tmp_path: Path):
    assert read_book(tmp_path, Role.WORKER).known == ()


def test_an_added_peer_is_known_in_its_own_file(tmp_path: Path):
    assert add(tmp_path, Role.WORKER, peer()) is True

    book = read_book(tmp_path, Role.WORKER)
    assert book.known == (replace(peer(), line=1),)
    assert read_book(tmp_path, Role.MASTER).known == ()
    assert (tmp_path / "known_workers").read_text() == LINE + "\n"
    assert (tmp_path / "known_workers").stat().st_mode & 0o777 == 0o600


def test_ssh_keygen_finds_lists_and_removes_our_lines(tmp_path: Path):
    """Shows: T7."""
    path = tmp_path / "known_workers"
    for number, name in enumerate(["lab-3", "Lab.4", "lab_5@site"], 3):
        add(tmp_path, Role.WORKER, peer(name, number))
    revoke(tmp_path, Role.WORKER, key(9), comment="stolen laptop")

    def keygen(*argv: str) -> str:
        done = subprocess.run(
            ["ssh-keygen", *argv, "-f", path],
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout

    assert f"Lab.4 {key(4).openssh} via=tofu" in keygen("-F", "Lab.4")
    assert str(key(5).key_id) in keygen("-l", "-F", "lab_5@site")
    assert [line.split()[1] for line in keygen("-l").splitlines()] == [
        str(key(number).key_id) for number in (3, 4, 5)
    ]
    keygen("-R", "lab-3")
    book = read_book(tmp_path, Role.WORKER)
    assert [p.name for p in book.known] == ["Lab.4", "lab_5@site"]
    assert [r.key_id for r in book.revoked] == [key(9).key_id]


def test_what_people_wrote_stays_as_it_was(tmp_path: Path):
    path = tmp_path / "known_workers"
    before = b"# our room \xff\n\n@cert-authority lab x AAAA\nlab-9 what is this"
    path.write_bytes(before)
    path.chmod(0o600)

    add(tmp_path, Role.WORKER, peer())
    forget(tmp_path, Role.WORKER, "lab-3")

    assert path.read_bytes() == before + b"\n"


def test_the_same_peer_twice_is_written_once(tmp_path: Path):
    add(tmp_path, Role.WORKER, peer())

    assert add(tmp_path, Role.WORKER, replace(peer(), via="accept")) is False
    assert (tmp_path / "known_workers").read_text() == LINE + "\n"


def test_a_known_name_with_another_key_is_refused_with_its_place(tmp_path: Path):
    write(tmp_path, "# one", LINE)

    with pytest.raises(KeyChangedError) as caught:
        add(tmp_path, Role.WORKER, peer(number=4))

    assert f"{tmp_path / 'known_workers'}:2" in str(caught.value)
    assert caught.value.hint.endswith("aemesh trust forget lab-3")
    assert read_book(tmp_path, Role.WORKER).known[0].key == key(3)


def test_a_known_key_with_another_name_is_refused(tmp_path: Path):
    add(tmp_path, Role.WORKER, peer())

    with pytest.raises(RefusedError, match="knows it as lab-3"):
        add(tmp_path, Role.WORKER, peer(name="lab-4"))


def test_a_revoked_key_cannot_be_added(tmp_path: Path):
    """Threat: 43."""
    revoke(tmp_path, Role.WORKER, key(3), comment="stolen")

    with pytest.raises(RefusedError, match="is revoked"):
        add(tmp_path, Role.WORKER, peer())


def test_revoking_twice_writes_one_line(tmp_path: Path):
    assert revoke(tmp_path, Role.WORKER, key(3)) is True
    assert revoke(tmp_path, Role.WORKER, key(3)) is False
    assert len(read_book(tmp_path, Role.WORKER).revoked) == 1


def test_forgetting_by_name_or_key_removes_those_lines_only(tmp_path: Path):
    write(tmp_path, LINE, f"lab-3 {key(4).openssh} unknown=1", known_line(peer("b", 5)))
    revoke(tmp_path, Role.WORKER, key(5))

    assert len(forget(tmp_path, Role.WORKER, "lab-3")) == 2
    assert forget(tmp_path, Role.WORKER, "lab-3") == ()
    assert forget(tmp_path, Role.WORKER, str(key(5).key_id)) == (
        known_line(peer("b", 5)),
    )
    assert len(read_book(tmp_path, Role.WORKER).revoked) == 1


def test_a_void_line_is_told_with_file_and_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = write(tmp_path, "# one", LINE + " form=10.0.0.0/8")

    with caplog.at_level(logging.WARNING):
        book = read_book(tmp_path, Role.WORKER)

    assert book.known == ()
    assert f"{path}:2 trusts nobody: unknown option" in caplog.text


def test_a_revocation_that_cannot_be_read_refuses_the_file(tmp_path: Path):
    path = write(tmp_path, LINE, "@revoked * ssh-ed25519 AAAA")

    with pytest.raises(TrustFileError) as caught:
        read_book(tmp_path, Role.WORKER)

    assert f"{path}:2" in str(caught.value)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused(mode: int, tmp_path: Path):
    path = write(tmp_path, LINE)
    path.chmod(mode)

    for use in (
        lambda: read_book(tmp_path, Role.WORKER),
        lambda: add(tmp_path, Role.WORKER, peer("b", 5)),
        lambda: forget(tmp_path, Role.WORKER, "lab-3"),
    ):
        with pytest.raises(TrustFileError) as caught:
            use()
        assert caught.value.hint == f"chmod go-w {path}"
    assert path.read_text() == LINE + "\n"


def test_a_folder_that_others_can_write_refuses_its_files(tmp_path: Path):
    write(tmp_path, LINE)
    tmp_path.chmod(0o777)

    with pytest.raises(TrustFileError, match="not safe"):
        read_book(tmp_path, Role.WORKER)


@pytest.mark.skipif(
    os.geteuid() != 0 or not has_many_users(), reason="only root gives files away"
)
def test_a_file_of_another_user_is_refused(tmp_path: Path):
    os.chown(write(tmp_path, LINE), 12345, -1)

    with pytest.raises(TrustFileError, match="user 12345"):
        read_book(tmp_path, Role.WORKER)


def test_a_file_beyond_the_bound_is_refused(tmp_path: Path):
    path = write(tmp_path, LINE)
    os.truncate(path, limits.TRUST_FILE_BYTES + 1)

    with pytest.raises(TrustFileError, match="too long"):
        read_book(tmp_path, Role.WORKER)


def test_a_running_agent_sees_each_change_once(tmp_path: Path):
    folder = TrustFolder(tmp_path)
    assert not folder.changed()

    add(tmp_path, Role.WORKER, peer())
    assert folder.changed()
    assert not folder.changed()

    revoke(tmp_path, Role.MASTER, key(9))
    assert folder.changed()
    forget(tmp_path, Role.WORKER, "lab-3")
    assert folder.changed()
    assert not folder.changed()
