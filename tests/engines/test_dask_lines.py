"""Lines are cut out of any pieces, and each byte costs the same."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from aemesh.engines.dask.lines import LineReader


@given(st.lists(st.binary(max_size=5) | st.just(b"\n"), max_size=20))
def test_lines_cut_anywhere_are_heard_once(pieces: list[bytes]):
    reader = LineReader(limit=100)

    heard = [line for piece in pieces for line in reader.receive_untrusted(piece)]

    assert [*heard, reader.leftover()] == b"".join(pieces).split(b"\n")


def test_a_long_line_comes_in_pieces():
    reader = LineReader(limit=10)

    assert reader.receive_untrusted(b"x" * 10) == []
    assert reader.receive_untrusted(b"y") == [b"x" * 10 + b"y"]
    assert reader.receive_untrusted(b"z\n") == [b"z"]


def test_what_waits_for_its_end_is_not_copied_again():
    reader = LineReader(limit=2**20)
    reader.receive_untrusted(b"x" * 1_000_000)
    copied = 0
    tracemalloc.start()
    try:
        for piece in (b"", b"x") * 500:
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            reader.receive_untrusted(piece)
            copied += tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()

    assert copied < 3_000_000  # it grows a time or two, and does not move each time
