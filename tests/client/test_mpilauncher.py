"""Which mpirun is found, and what it is told; the programs are scripts that say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from aemesh.client.mpilauncher import Kind, Launcher, find_launcher
from aemesh.errors import SettingsError

OPEN_4 = "mpirun.openmpi (OpenRTE) 4.1.4\n\nReport bugs to http://…"
OPEN_5 = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://…"
HYDRA = "HYDRA build details:\n    Version:       4.0.2\n    CC:   gcc"
INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.12"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Make programs on the PATH, which has nothing else."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(**said: str) -> Path:
        for name, text in said.items():
            path = tmp_path / name.replace("_", ".")
            path.write_text(f"#!/bin/sh\necho '{text}'\n")
            path.chmod(0o755)
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("text", "kind", "version"),
    [
        (OPEN_4, Kind.OPEN_MPI, "4.1.4"),
        (OPEN_5, Kind.OPEN_MPI, "5.0.11"),
        (HYDRA, Kind.MPICH, "4.0.2"),
    ],
)
def test_it_is_known_by_what_it_says_of_its_version(programs, text, kind, version):
    place = programs(mpirun=text)

    assert find_launcher(None) == Launcher("mpirun", place / "mpirun", kind, version)


def test_the_first_of_the_wanted_kind_is_taken(programs):
    place = programs(mpirun=HYDRA, mpiexec=OPEN_5, mpirun_openmpi=OPEN_4)

    assert find_launcher(None).command == "mpirun"
    assert find_launcher("mpich").command == "mpirun"
    assert find_launcher("openmpi").command == "mpiexec"
    assert find_launcher("mpirun.openmpi").version == "4.1.4"
    assert find_launcher(str(place / "mpiexec")).command == str(place / "mpiexec")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (None, "no mpirun of Open MPI or MPICH is here: tried "),
        ("openmpi", "no mpirun of Open MPI is here: tried "),
        ("mpich", "no mpirun of MPICH is here: tried "),
        ("/no/such", '"/no/such" is no mpirun of Open MPI or MPICH: looked for '),
    ],
)
def test_without_one_the_error_says_where_to_get_it(programs, wanted, said):
    programs(mpirun=INTEL)

    with pytest.raises(SettingsError, match="mpirun") as caught:
        find_launcher(wanted)

    assert str(caught.value).startswith(said)
    assert "openmpi-bin" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("command", "kind", "version", "daemon"),
    [
        ("mpirun", Kind.OPEN_MPI, "4.1.4", "orted"),
        ("mpirun", Kind.OPEN_MPI, "5.0.11", "prted"),
        ("/opt/bin/mpirun", Kind.OPEN_MPI, "5.0.11", "/opt/bin/prted"),
        ("mpirun", Kind.MPICH, "4.0.2", "/opt/bin/hydra_pmi_proxy"),
    ],
)
def test_its_daemon_is_where_it_looks_for_it(command, kind, version, daemon):
    launcher = Launcher(command, Path("/opt/bin/mpirun"), kind, version)

    assert launcher.daemon == daemon


@pytest.mark.parametrize(
    ("kind", "version", "expected"),
    [
        (Kind.OPEN_MPI, "4.1.4", {"OMPI_MCA_plm_rsh_agent": "/bin/sh /t/agent"}),
        (Kind.OPEN_MPI, "4.1.4", {"OMPI_MCA_oob_tcp_if_include": "10.0.0.0/24"}),
        (Kind.OPEN_MPI, "5.0.1", {"PRTE_MCA_plm_ssh_agent": "/bin/sh /t/agent"}),
        (Kind.OPEN_MPI, "5.0.1", {"OMPI_MCA_btl_tcp_if_include": "10.0.0.0/24"}),
        (Kind.MPICH, "5.0.1", {"HYDRA_LAUNCHER_EXEC": "/t/agent"}),
    ],
)
def test_it_is_told_of_agent_and_network_in_its_own_variables(kind, version, expected):
    launcher = Launcher("mpirun", Path("/opt/bin/mpirun"), kind, version)
    agent, hosts = Path("/t/agent"), Path("/t/hosts")

    told = launcher.variables(agent=agent, hosts=hosts, subnet="10.0.0.0/24")
    without = launcher.variables(agent=agent, hosts=hosts, subnet="")

    looks = launcher.prelude("10.0.0.0/24", alone=False)
    assert bool(looks) == (kind is Kind.MPICH)
    assert "UCX" not in looks
    assert expected.items() <= told.items()
    assert "/t/hosts" in told.values()
    assert not any("if_include" in name for name in without)
