"""What this machine offers."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from aemesh.host.facts import find_facts


def test_the_facts_are_those_of_this_machine():
    facts = find_facts()

    assert 1 <= facts.cores <= len(os.sched_getaffinity(0))
    assert 0 < facts.memory <= psutil.virtual_memory().total
    assert facts.python == sys.version.split()[0]
    assert facts.system.startswith("linux-")


def test_a_pinned_process_offers_only_its_cores():
    """Shows: D11."""
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from aemesh.host.facts import find_facts; print(find_facts().cores)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert shown.stdout == "1\n"
