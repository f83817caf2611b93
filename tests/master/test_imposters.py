"""The table of imposters: one line a lie, bounded, and ours are not pushed out."""

from __future__ import annotations

from aemesh import limits
from aemesh.master.imposters import Imposters, Lie, Seen


def seen(subject: str = "aemesh-x", lie: Lie = Lie.FORGED, *where: str) -> Seen:
    return Seen(
        subject=subject,
        lie=lie,
        name="office-1",
        key="SHA256:x",
        addresses=where or ("10.0.0.66:7472",),
        reason=lie.value,
    )


def test_the_same_lie_is_one_line_with_its_first_and_last_time() -> None:
    table = Imposters()

    times = [table.see(seen(), now=now, ours=True) for now in (5.0, 6.0, 9.0)]

    (view,) = table.views()
    assert times == [1, 2, 3]
    assert (view.first_at, view.last_at, view.times) == (5.0, 9.0, 3)
    assert view.addresses == ("10.0.0.66:7472",)


def test_another_kind_of_lie_is_another_line_and_the_latest_is_first() -> None:
    table = Imposters()
    for number, lie in enumerate(Lie):
        table.see(seen("aemesh-x", lie), now=float(number), ours=True)

    assert [view.reason for view in table.views()] == [
        lie.value for lie in reversed(Lie)
    ]


def test_the_places_of_one_liar_are_kept_the_latest_first_and_a_few() -> None:
    table = Imposters()
    for number in range(20):
        table.see(
            seen("aemesh-x", Lie.FORGED, f"10.0.0.{number}:7472"), now=1, ours=True
        )

    (view,) = table.views()
    assert len(view.addresses) == limits.ANNOUNCED_ADDRESSES
    assert view.addresses[:2] == ("10.0.0.19:7472", "10.0.0.18:7472")


def test_a_flood_of_lies_about_nobody_pushes_out_none_about_a_worker_of_ours() -> None:
    """Threat: 61."""
    table = Imposters()
    table.see(seen("ours"), now=1.0, ours=True)
    for number in range(10 * limits.IMPOSTERS_SEEN):
        table.see(seen(f"aemesh-{number}"), now=2.0, ours=False)
        table.check()

    assert len(table.views()) == limits.IMPOSTERS_SEEN
    assert table.views()[-1].first_at == 1.0


def test_of_those_about_ours_the_oldest_goes_when_there_are_no_others() -> None:
    table = Imposters()
    for number in range(limits.IMPOSTERS_SEEN + 1):
        table.see(seen(f"ours-{number}"), now=float(number), ours=True)
    table.check()

    assert table.views()[-1].first_at == 1.0
