"""Values of a script's classes, read by the next run of that script."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aemesh.client.homecoming import read_value
from aemesh.client.itemtask import dumps

pytest.importorskip("cloudpickle")
ROOT = str(Path(__file__).parents[2])
SCRIPT = f"""
import dataclasses, enum, pickle, sys
sys.path.insert(0, {ROOT!r})
from aemesh.client.homecoming import read_value
from aemesh.client.itemtask import dumps

@dataclasses.dataclass
class Fit:
    x: int
    def double(self): return 2 * self.x

class Late(Fit):
    def __init__(self): super().__init__(7)

class State(enum.Enum):
    OK = 1

class Other: pass

def other():
    class Other:
        pass
    return Other()

class FitError(Exception): pass

file = sys.argv[2]
if sys.argv[1] == "write":
    value = [Fit(1), Fit(2), Late(), State.OK, {{Fit: 3}}, FitError("bad")]
    open(file, "wb").write(dumps(value))
else:
    one, two, late, state, table, error = read_value(open(file, "rb").read())
    assert one == Fit(1) and type(two) is Fit and two.double() == 4
    assert type(late) is Late and isinstance(late, Fit) and late.x == 7
    assert state is State.OK
    assert table[Fit] == 3
    assert type(error) is FitError and str(error) == "bad"
    assert pickle.loads(pickle.dumps(one)) == one
here = other()
assert type(read_value(dumps(here))) is type(here)
print("ok")
"""


def test_values_of_a_script_are_of_the_next_ones_classes(tmp_path: Path) -> None:
    script, file = tmp_path / "script.py", tmp_path / "values"
    script.write_text(SCRIPT)
    for word in ("write", "read"):
        done = subprocess.run(
            [sys.executable, script, word, file],
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.stdout == "ok\n", done.stderr


def test_a_class_that_is_not_at_home_is_brought_along(tmp_path: Path) -> None:
    script, file = tmp_path / "script.py", tmp_path / "values"
    script.write_text(SCRIPT)
    subprocess.run([sys.executable, script, "write", file], check=True)

    one, two, *_, state, _, _ = read_value(file.read_bytes())

    assert type(one) is type(two)
    assert type(one).__name__ == "Fit"
    assert two.double() == 4
    assert state.name == "OK"


def test_other_values_are_read_as_they_are() -> None:
    for value in (1, "a", [Path("a")], {"a": len}):
        assert read_value(dumps(value)) == value
    assert read_value(dumps(lambda x: x + 1))(2) == 3
