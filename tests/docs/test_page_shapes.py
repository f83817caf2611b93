"""How a page is compared with a terminal: what may differ, and what may not."""

from __future__ import annotations

import pytest

from tests.lab.page_shapes import Bindings
from tests.lab.terminal_pages import PageError, read_steps

ONE, TWO, THREE = (f"SHA256:{letter * 43}" for letter in "abc")


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("04:20:30 linked", "23:59:01 linked"),
        ("at 10.77.0.1:52210 now", "at [fd77::1]:7472 now"),
        ("at 10.77.0.1", "at fe80::2c6e:22ff:feaa:3989%eth0"),
        ("2 cores, 23.5 GiB", "1 core, 7.0 GiB"),
        ("NAME  ID", "NAME        ID   "),
        ("added 20261125", "added 20270101"),
        ("id vkucoqp2", "id umuebhqj"),
        ("in /home/you/.config", "in /var/tmp/x/home/.config"),
        ("no: …", "no: whatever it is"),
        (f"{ONE} twice {ONE}", f"{TWO} twice {TWO}"),
        ("a-b-c-d and a-b-c-e", "k-l-m-n and k-l-m-o"),
    ],
)
def test_what_varies_is_the_same(shown: str, said: str):
    assert Bindings().meet(shown, said)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("04:20:30 linked", "04:20 linked"),
        ("accepted office-1", "accepted office-2"),
        ("5 left", "4 left"),
        (f"{ONE} twice {ONE}", f"{TWO} twice {THREE}"),
        (f"{ONE} and {TWO}", f"{THREE} and {THREE}"),
        ("trusted", "distrusted"),
    ],
)
def test_what_says_something_else_is_not(shown: str, said: str):
    assert not Bindings().meet(shown, said)


def test_what_stands_for_a_key_stands_for_it_on_every_line():
    seen = Bindings()
    assert seen.meet(f"mine is {ONE}", f"mine is {TWO}")

    assert not seen.meet(f"it said {ONE}", f"it said {THREE}")
    assert not seen.meet(f"it said {THREE}", f"it said {TWO}")
    assert seen.meet(f"it said {ONE}", f"it said {TWO}")
    assert seen.put_in(f"trust accept {ONE} 10.77.0.1") == (
        f"trust accept {TWO} 10.77.0.1"
    )


def test_the_blocks_of_a_page_are_read_in_their_order():
    text = """
<!-- lab -->
```console
laptop$ cat > note <<END
> one
> END
kdc# id
uid=0(root) …
```

```console
laptop$ is not typed
```

<!-- lab laptop: aemesh master -->
```console
trust it? [y/N] y
```
"""

    one, two, three = read_steps(text)

    assert (one.host, one.typed, one.root) == (
        "laptop",
        ["cat > note <<END", "one", "END"],
        False,
    )
    assert (two.host, two.root, [line.number for line in two.lines]) == (
        "kdc",
        True,
        [8],
    )
    assert (three.host, three.running, three.typed) == ("laptop", "aemesh master", [])
    assert [(line.number, line.text) for line in three.lines] == [
        (17, "trust it? [y/N] y")
    ]


def test_a_block_that_belongs_to_nobody_is_told():
    with pytest.raises(PageError, match="line 3"):
        read_steps("<!-- lab -->\n```console\nhello\n```\n")
