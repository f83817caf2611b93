"""known_workers and known_masters: OpenSSH's shape, read with suspicion."""

from __future__ import annotations

import base64
import logging
import os
import re
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

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
from aemesh.host.trust.trustfiles import (
    TrustFolder,
    add,
    add_next_key,
    can_add,
    drop_key,
    forget,
    read_book,
    revoke,
    revoke_openssh,
    touch_last,
    verify,
    void_lines,
)
from aemesh.host.trust.trustlines import (
    RefusedLineError,
    VoidLine,
    changed_line,
    known_line,
    parse_line_untrusted,
    revoked_line,
)
from aemesh.model.key import KeyId, PublicKey
from aemesh.model.names import NodeName
from aemesh.model.trust import (
    KnownPeer,
    Mode,
    Peer,
    PinnedAuthority,
    RevokedKey,
    Role,
    Terms,
    TrustBook,
)
from aemesh.policy.rotation import refuses_next
from aemesh.testing.lab_needs import has_many_users


def key(number: int) -> PublicKey:
    return PublicKey(bytes([number]) * 32)


def peer(name: str = "lab-3", number: int = 3) -> KnownPeer:
    return KnownPeer(NodeName(name), key(number), via="tofu", added="20261120")


def revoked(comment: str, *, line: int) -> RevokedKey:
    return RevokedKey(key(9).key_id, key(9).openssh, comment, line)


LINE = f"lab-3 {key(3).openssh} via=tofu added=20261120 mode=leap proto=1"


AUTHORIZED = (
    "# who may use this worker\n"
    'users="alice+render",from="192.0.2.0/24,!192.0.2.7",groups="*" '
    f"{key(3).openssh} alice@desk\n"
    f"{key(4).openssh}\n"
)


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
        LINE + " from=lab.example.org",
        LINE + " from=10.0.0.1/8",
        LINE + " from=10.0.0.0/8,",
        LINE + " groups=",
        LINE + " groups=a,,b",
        LINE + " groups=a, b",
        LINE + " groups",
        LINE + " users=alice+bob",
        LINE + " expiry-time=20271301",
        LINE + " expiry-time=2027",
        LINE + " expiry-time=20270101 expiry-time=20280101",
        LINE + " last=20270230",
        LINE + " Groups=a",
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
        LINE.replace(key(3).openssh, key(3).openssh + "="),
        LINE.replace(key(3).openssh, key(3).openssh + "===="),
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


def test_a_certificate_authority_is_pinned_by_its_key():
    text = f"@cert-authority lab-*,!lab-9 {key(7).openssh} site CA"

    pin = parse_line_untrusted(text, 1)

    assert pin == PinnedAuthority(("lab-*", "!lab-9"), key(7).key_id, "site CA", 1)


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
        assert re.match(r"[^!-~]*@", text)
    else:
        assert not isinstance(entry, KnownPeer)


OPTIONS = ["via", "added", "last", "mode", "proto"]
OPTIONS += ["from", "groups", "users", "expiry-time"]


@given(st.sampled_from(OPTIONS), st.text())
def test_any_option_keeps_the_line_one_line(option: str, value: str):
    entry = parse_line_untrusted(f"lab-3 {key(3).openssh} {option}={value}", 1)

    if isinstance(entry, KnownPeer):
        assert "\n" not in entry.via


NAMES = st.from_regex(r"!?[A-Za-z0-9_.@$*?-]{1,20}", fullmatch=True)
SOURCES = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["10.0.0.0/8", "!fe80::/10", "192.0.2.*", "!10.?.0.*", "*"]),
)
DAYS = st.dates().map(lambda day: f"{day:%Y%m%d}".rjust(8, "0"))


def lists(of: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(of, max_size=3).map(tuple)


TERMS = st.builds(
    Terms,
    groups=lists(NAMES),
    sources=lists(SOURCES),
    users=lists(NAMES),
    expires_at=st.none() | st.integers(0, 2**40 // 8).map(float),
)


@given(
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
    st.sampled_from(Mode),
    st.just("") | DAYS,
    TERMS,
)
def test_what_is_written_is_read_back(
    name: str, raw: bytes, mode: Mode, last: str, terms: Terms
):
    one = KnownPeer(
        NodeName(name), PublicKey(raw), "sas", "20261120", mode, last=last, terms=terms
    )

    assert parse_line_untrusted(known_line(one), 0) == one


@pytest.mark.parametrize(
    "terms",
    [
        Terms(groups=("a b",)),
        Terms(groups=("a,b",)),
        Terms(groups=("",)),
        Terms(users=("alice\nevil ssh-ed25519 AAAA",)),
        Terms(sources=("lab.example.org",)),
        Terms(expires_at=0.5),
        Terms(expires_at=float("inf")),
        Terms(expires_at=float("nan")),
        Terms(expires_at=1e30),
    ],
)
def test_terms_that_no_line_can_have_are_not_written(terms: Terms):
    """Else a line would say less than was meant, or nothing at all."""
    with pytest.raises(BadMessage):
        known_line(replace(peer(), terms=terms))


@given(st.dictionaries(st.sampled_from(["via", "last", "mode"]), st.just("leap")))
def test_a_changed_line_keeps_all_the_rest(changes: dict[str, str]):
    before = LINE + " groups=a from=10.0.0.0/8"

    after = changed_line(before, changes)

    assert after.split()[:3] == before.split()[:3]
    untouched = {w for w in before.split()[3:] if w.split("=")[0] not in changes}
    added = {f"{name}={value}" for name, value in changes.items()}
    assert sorted(after.split()[3:]) == sorted(untouched | added)


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
    terms = Terms(("a*", "!b"), ("192.0.2.0/24", "!192.0.2.7"), ("alice",), 2e9)
    for number, name in enumerate(["lab-3", "Lab.4", "lab_5@site"], 3):
        one = replace(peer(name, number), terms=terms, last="20270101")
        add(tmp_path, Role.WORKER, one)
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
    assert all(p.terms == terms for p in book.known)
    assert [p.name for p in book.known] == ["Lab.4", "lab_5@site"]
    assert [r.key_id for r in book.revoked] == [key(9).key_id]


def test_ssh_keygen_lists_authorized_masters(tmp_path: Path):
    """Shows: T7."""
    path = tmp_path / "authorized_masters"
    path.write_text(AUTHORIZED)

    done = subprocess.run(
        ["ssh-keygen", "-l", "-f", path], check=True, capture_output=True, text=True
    )

    book = read_book(tmp_path, Role.MASTER)
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        str(line.key_id) for line in book.authorized
    ]
    assert len(book.authorized) == 2


def test_what_people_wrote_stays_as_it_was(tmp_path: Path):
    path = tmp_path / "known_workers"
    pin = f"@cert-authority * {key(7).openssh}".encode()
    before = b"# our room \xff\n\n" + pin + b"\nlab-9 what is this"
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


# --- authorized_masters and gss_principals ------------------------------------------


def test_a_worker_reads_who_its_administrator_authorized(tmp_path: Path):
    (tmp_path / "authorized_masters").write_text(AUTHORIZED)
    (tmp_path / "gss_principals").write_text("alice@R users=alice\nbob@R\n")

    book = read_book(tmp_path, Role.MASTER)

    assert [(line.key_id, line.line) for line in book.authorized] == [
        (key(3).key_id, 2),
        (key(4).key_id, 3),
    ]
    assert book.authorized[0].terms.users == ("alice", "render")
    assert [p.name for p in book.principals] == ["alice@R", "bob@R"]
    # A master has masters to authorize in no file.
    assert read_book(tmp_path, Role.WORKER).authorized == ()


@pytest.mark.parametrize("file", ["authorized_masters", "gss_principals"])
def test_these_files_are_as_safe_as_the_others(file: str, tmp_path: Path):
    path = tmp_path / file
    path.write_text(f"@revoked * {key(3).openssh}\n")
    with pytest.raises(TrustFileError) as caught:
        read_book(tmp_path, Role.MASTER)
    assert f"{path}:1" in str(caught.value)

    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(TrustFileError) as caught:
        read_book(tmp_path, Role.MASTER)
    assert caught.value.hint == f"chmod go-w {path}"


@pytest.mark.parametrize("file", ["authorized_masters", "gss_principals"])
def test_a_running_agent_sees_what_the_administrator_changes(file, tmp_path: Path):
    folder = TrustFolder(tmp_path)

    (tmp_path / file).write_text("# nothing yet\n")

    assert folder.changed()


def test_void_lines_are_listed_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    known = tmp_path / "known_masters"
    known.write_text(f"{LINE}\n{LINE} form=x\n")
    authorized = tmp_path / "authorized_masters"
    authorized.write_text(f'sandbox="bwrap" {key(4).openssh}\n')
    principals = tmp_path / "gss_principals"
    principals.write_text("alice\n")

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            read_book(tmp_path, Role.MASTER)

    told = [(path, line.line) for path, line in void_lines(tmp_path, Role.MASTER)]
    assert told == [(known, 2), (authorized, 1), (principals, 1)]
    assert len(caplog.records) == 3


@given(st.binary(max_size=300))
def test_any_bytes_are_a_book_or_are_refused(data: bytes):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in ("known_masters", "authorized_masters", "gss_principals"):
            (folder / file).write_bytes(data)
        try:
            book = read_book(folder, Role.MASTER, tell_void=lambda *_: None)
        except TrustFileError:
            assert b"@" in data
        else:
            assert (book.known, book.revoked) == ((), ())


# --- keys that change, last seen, verified ------------------------------------------

DAY = "20270101"


def names_and_keys(folder: Path) -> list[tuple[str, PublicKey]]:
    return [(p.name, p.key) for p in read_book(folder, Role.WORKER).known]


def test_the_next_key_of_a_peer_stands_beside_the_old_one_until_that_is_dropped(
    tmp_path: Path,
):
    terms = Terms(groups=("a",), expires_at=2e9)
    old = replace(peer(), mode=Mode.GSS, terms=terms, last="20261231")
    add(tmp_path, Role.WORKER, old)

    assert add_next_key(tmp_path, Role.WORKER, old, key(4), day=DAY) is True
    assert add_next_key(tmp_path, Role.WORKER, old, key(4), day=DAY) is False

    book = read_book(tmp_path, Role.WORKER)
    assert book.known[1] == replace(old, key=key(4), added=DAY, last="", line=2)
    # Either is known meanwhile, a third one is not.
    for number in (3, 4):
        assert add(tmp_path, Role.WORKER, peer(number=number)) is False
    with pytest.raises(KeyChangedError):
        add(tmp_path, Role.WORKER, peer(number=5))

    assert drop_key(tmp_path, Role.WORKER, old) is True
    assert names_and_keys(tmp_path) == [("lab-3", key(4))]


def test_the_only_key_of_a_peer_is_not_dropped(tmp_path: Path):
    add(tmp_path, Role.WORKER, peer())

    assert drop_key(tmp_path, Role.WORKER, peer()) is False
    assert drop_key(tmp_path, Role.WORKER, peer(number=4)) is False
    assert names_and_keys(tmp_path) == [("lab-3", key(3))]


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ([], "no such line"),
        ([known_line(peer(number=5))], "no such line"),
        ([known_line(peer(name="other"))], "no such line"),
        ([f"lab-3 {key(3).openssh}"], "written by hand"),
        ([LINE, f"@revoked * {key(3).openssh}"], "is revoked"),
        ([LINE, f"@revoked * {key(4).openssh}"], "is revoked"),
        ([LINE, known_line(peer(number=5))], "changing its key already"),
        ([LINE, known_line(peer("other", 4))], "knows it as other"),
    ],
)
def test_a_next_key_is_taken_from_whom_the_old_key_is_known(
    before: list[str], words: str, tmp_path: Path
):
    """Threat: 30."""
    path = write(tmp_path, *before)
    text = path.read_text()

    with pytest.raises(RefusedError, match=words):
        add_next_key(tmp_path, Role.WORKER, peer(), key(4), day=DAY)

    assert path.read_text() == text


@pytest.mark.parametrize(
    ("day", "mode", "last", "mode_then", "wrote"),
    [
        ("20270101", Mode.LEAP, "20270101", Mode.LEAP, True),
        ("20261230", Mode.LEAP, "20261231", Mode.LEAP, False),  # a clock set back
        ("20261231", Mode.LEAP, "20261231", Mode.LEAP, False),  # once a day
        ("20261231", Mode.X509, "20261231", Mode.X509, True),
        ("20270101", Mode.OPEN, "20270101", Mode.LEAP, True),
    ],
)
def test_last_and_mode_only_rise(
    day: str, mode: Mode, last: str, mode_then: Mode, wrote: bool, tmp_path: Path
):
    """T11: who was seen in a weak mode is not taken for a weak one."""
    write(
        tmp_path, "# ours", f"{LINE} last=20261231 groups=a", known_line(peer("b", 5))
    )

    assert touch_last(tmp_path, Role.WORKER, key(3), day, mode=mode) is wrote

    one, other = read_book(tmp_path, Role.WORKER).known
    assert (one.last, one.mode) == (last, mode_then)
    assert replace(one, last="", mode=Mode.LEAP) == replace(
        peer(), terms=Terms(groups=("a",)), line=2
    )
    assert other == replace(peer("b", 5), line=3)


def test_nobody_unknown_is_touched_or_verified(tmp_path: Path):
    path = write(tmp_path, LINE)

    assert touch_last(tmp_path, Role.WORKER, key(4), DAY, mode=Mode.LEAP) is False
    assert verify(tmp_path, Role.WORKER, key(4).key_id) is False
    assert path.read_text() == LINE + "\n"


@pytest.mark.parametrize("via", ["tofu", "accept", "flag", "prompt", "token:abc"])
def test_what_was_compared_is_verified_once(via: str, tmp_path: Path):
    add(tmp_path, Role.WORKER, replace(peer(), via=via))

    assert verify(tmp_path, Role.WORKER, key(3).key_id) is True
    assert verify(tmp_path, Role.WORKER, key(3).key_id) is False

    (known,) = read_book(tmp_path, Role.WORKER).known
    assert known == replace(peer(), via="verified", line=1)


def test_what_could_be_added_is_told_without_adding_it(tmp_path: Path):
    assert can_add(tmp_path, Role.WORKER, peer()) is True
    assert not (tmp_path / "known_workers").exists()

    add(tmp_path, Role.WORKER, peer())
    assert can_add(tmp_path, Role.WORKER, peer()) is False
    with pytest.raises(KeyChangedError):
        can_add(tmp_path, Role.WORKER, peer(number=4))


def test_the_key_of_an_authority_can_be_revoked_but_not_half_of_one(tmp_path: Path):
    """Threat: 43."""
    point = b"\x04" + bytes(64)
    parts = (b"ecdsa-sha2-nistp256", b"nistp256", point)
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    text = f"ecdsa-sha2-nistp256 {base64.b64encode(blob).decode()}"

    assert revoke_openssh(tmp_path, Role.MASTER, text, comment="old CA") is True

    (line,) = read_book(tmp_path, Role.MASTER).revoked
    assert line == RevokedKey(KeyId.of_blob(blob), text, "old CA", 1)
    with pytest.raises(BadMessage):
        revoke_openssh(tmp_path, Role.MASTER, text[:-8])
    (tmp_path / "known_masters").write_text(f"@revoked * {text[:-8]}\n")
    with pytest.raises(TrustFileError):
        read_book(tmp_path, Role.MASTER)


@pytest.mark.parametrize("via", ["hand", "import"])
def test_a_line_that_a_person_wrote_and_verified_is_still_a_persons(tmp_path, via):
    """Verified, it was like one that was learnt: its peer could change it.

    Threat: 30
    """
    tmp_path.chmod(0o700)
    line = KnownPeer(NodeName("lab-1"), key(3), via=via, added="20260101")
    add(tmp_path, Role.WORKER, line)

    assert verify(tmp_path, Role.WORKER, key(3).key_id) is True
    assert verify(tmp_path, Role.WORKER, key(3).key_id) is False

    (kept,) = read_book(tmp_path, Role.WORKER).known
    met = Peer(Role.WORKER, kept.name, kept.key, Mode.LEAP, "10.0.0.2:7472")
    assert kept.via == f"verified:{via}"
    assert refuses_next(met, key(4), TrustBook(known=(kept,))) is not None
