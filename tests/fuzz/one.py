"""One target under atheris: ``python -m tests.fuzz.one NAME [libFuzzer's options]``."""

from __future__ import annotations

import logging
import sys
import warnings

import atheris

with atheris.instrument_imports(include=["aemesh"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until libFuzzer has had enough, or found something."""
    name, *options = sys.argv[1:]
    logging.getLogger("aemesh").setLevel(logging.CRITICAL)  # it would tell each
    warnings.simplefilter("error")  # as in the tests: nothing of ours warns
    atheris.Setup([sys.argv[0], *options], TARGETS[name].run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
