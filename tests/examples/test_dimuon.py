"""The example analysis finds the real masses, and the same counts wherever it runs."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import uproot
from distributed import Client, LocalCluster

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name: str) -> ModuleType:
    """Import an example, which is a script and not in any package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dask sends its functions by the name of their module, and dataclasses look it up.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


dimuon = load("dimuon")
make_dimuon = load("make_dimuon")
Spectrum = Any  # dimuon.Spectrum, which mypy cannot see in a loaded script


@contextmanager
def office(workers: int) -> Iterator[LocalCluster]:
    """Workers in this process, but reached over TCP: strangers can be their client."""
    with LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data")
    paths = [folder / f"dimuon-{number}.root" for number in range(4)]
    for number, path in enumerate(paths):
        make_dimuon.write_file(path, 50_000, seed=1, number=number)
    return paths


@pytest.fixture(scope="module")
def spectrum(files: list[Path]) -> Spectrum:
    """What one worker makes of the files, with the scale varied."""
    with office(1) as cluster, Client(cluster) as client:
        return dimuon.analyse(client, files, dimuon.momentum_scales(5))


def columns(path: Path) -> dict[str, Any]:
    with uproot.open(path) as file:
        return {
            f"{tree}/{branch}": values.to_list()
            for tree in file.keys(cycle=False)
            for branch, values in file[tree].arrays(library="ak", how=dict).items()
        }


def run(*words: object, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# The generator


def test_a_file_has_three_trees_with_muons_like_nanoaod(files: list[Path]) -> None:
    with uproot.open(files[0]) as file:
        assert set(file.classnames().values()) == {"TTree"}
        trees = {name: file[name] for name in file.keys(cycle=False)}
        assert list(trees) == ["Run2016", "Run2017", "Run2018"]
        assert sum(tree.num_entries for tree in trees.values()) == 50_000
        for tree in trees.values():
            assert {"nMuon", "Muon_pt", "Muon_eta", "Muon_phi", "Muon_charge"} <= set(
                tree.keys()
            )


def test_events_have_from_none_to_three_muons_and_pairs_of_either_kind(
    files: list[Path],
) -> None:
    with uproot.open(files[0]) as file:
        muons = file["Run2018"].arrays()

    pairs = muons[muons.nMuon == 2].Muon_charge
    assert set(np.unique(muons.nMuon)) == {0, 1, 2, 3}
    assert 0.1 < np.mean(pairs[:, 0] == pairs[:, 1]) < 0.5
    assert np.all(muons[muons.nMuon == 3].Muon_pt[:, 0] > 0)


def test_the_seed_and_the_number_of_a_file_decide_what_is_in_it(tmp_path: Path) -> None:
    made = {}
    for name, seed, number in [
        ("a", 7, 0),
        ("same", 7, 0),
        ("next", 7, 1),
        ("other seed", 8, 0),
    ]:
        path = tmp_path / f"{name}.root"
        make_dimuon.write_file(path, 300, seed=seed, number=number)
        made[name] = columns(path)

    assert made["same"] == made["a"]
    assert made["next"] != made["a"]
    assert made["other seed"] != made["a"]


def test_a_decay_keeps_the_mass_and_the_transverse_momentum_of_the_parent() -> None:
    rng = np.random.default_rng(0)
    mass, parent_pt = rng.uniform(1, 100, 1000), rng.uniform(0, 50, 1000)

    pt, eta, phi = make_dimuon.decay(mass, parent_pt, rng)

    x, y, z = pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)
    energy = np.sqrt(x**2 + y**2 + z**2 + make_dimuon.MUON_MASS**2)
    total = [part.sum(axis=1) for part in (energy, x, y, z)]
    found = np.sqrt(total[0] ** 2 - total[1] ** 2 - total[2] ** 2 - total[3] ** 2)
    np.testing.assert_allclose(found, mass, rtol=1e-6)
    np.testing.assert_allclose(np.hypot(total[1], total[2]), parent_pt, atol=1e-6)


def test_generator_and_analysis_know_the_same_particles() -> None:
    made = {(each.name, each.mass, each.width) for each in make_dimuon.RESONANCES}
    sought = {
        (peak.name, peak.mass, peak.width)
        for window in dimuon.WINDOWS
        for peak in window.peaks
    }

    assert sought == made


# The analysis


def test_every_fitted_mass_is_the_real_one(spectrum: Spectrum) -> None:
    fits = [dimuon.fit(spectrum.histogram, window) for window in dimuon.WINDOWS]
    peaks = {peak.name: peak for peak in dimuon.fitted_peaks(spectrum.histogram, fits)}

    # Statistical errors of 200 000 events, generously, in GeV.
    most = {
        "J/psi(1S)": 0.0005,
        "psi(2S)": 0.002,
        "Upsilon(1S)": 0.002,
        "Upsilon(2S)": 0.004,
        "Upsilon(3S)": 0.005,
        "Z": 0.03,
    }
    assert peaks.keys() == most.keys()
    for name, peak in peaks.items():
        assert peak.error < most[name], name
        assert abs(peak.pull) < 4, name
        # All momenta 0.2 % up or down move every mass by as much.
        assert peak.scale_error == pytest.approx(0.002 * peak.pdg, rel=0.1), name
    for fit in fits:
        assert (fit.pulls**2).mean() == pytest.approx(1, abs=0.4)


def test_one_worker_and_three_count_the_same_to_the_last_bit(
    files: list[Path], spectrum: Spectrum
) -> None:
    with office(3) as cluster, Client(cluster) as client:
        again = dimuon.analyse(client, files, dimuon.momentum_scales(5))

    assert again.counts_sha256 == spectrum.counts_sha256
    assert again.events == spectrum.events == 200_000
    np.testing.assert_array_equal(
        again.histogram.values(), spectrum.histogram.values(), strict=True
    )


def test_the_order_and_size_of_the_tasks_do_not_change_the_counts(
    files: list[Path], spectrum: Spectrum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dimuon, "WORK_PER_TASK", 1)  # each variation alone

    with office(2) as cluster, Client(cluster) as client:
        again = dimuon.analyse(client, files[::-1], dimuon.momentum_scales(5))

    assert again.workers.total() == 4 * 5
    assert again.counts_sha256 == spectrum.counts_sha256


def test_only_opposite_signs_within_the_cuts_are_paired() -> None:
    pair = {"pt": [20.0, 30.0], "eta": [0.1, -0.4], "phi": [0.3, 2.9]}
    events = [
        [(20.0, 0.1, 0.3, 1), (30.0, -0.4, 2.9, -1)],
        [(20.0, 0.1, 0.3, 1), (30.0, -0.4, 2.9, 1)],  # of the same sign
        [(20.0, 0.1, 0.3, 1), (2.9, -0.4, 2.9, -1)],  # too soft
        [(20.0, 2.5, 0.3, 1), (30.0, -0.4, 2.9, -1)],  # too far forward
        [(20.0, 0.1, 0.3, 1)],
        [],
    ]
    names = ("pt", "eta", "phi", "charge")
    muons = dimuon.ak.Array(
        [[dict(zip(names, muon, strict=True)) for muon in event] for event in events]
    )

    masses = dimuon.pair_masses(muons, 1.0)

    (pt_a, pt_b), (eta_a, eta_b), (phi_a, phi_b) = pair.values()
    massless = 2 * pt_a * pt_b * (np.cosh(eta_a - eta_b) - np.cos(phi_a - phi_b))
    np.testing.assert_allclose(masses, [np.sqrt(massless)], rtol=1e-4)


def test_variations_begin_with_the_nominal_scale_and_span_the_uncertainty() -> None:
    assert dimuon.momentum_scales(1) == [1.0]
    assert dimuon.momentum_scales(4) == pytest.approx([1.0, 0.998, 1.0, 1.002])


# The script


def test_the_script_finds_its_scheduler_and_says_what_it_found(
    files: list[Path], spectrum: Spectrum, tmp_path: Path
) -> None:
    picture, result = tmp_path / "dimuon.png", tmp_path / "result.json"
    words = (*files, "--scales", 5, "--out", picture, "--json", result)

    with office(2) as cluster:
        done = run(
            EXAMPLES / "dimuon.py",
            *words,
            DASK_SCHEDULER_ADDRESS=cluster.scheduler_address,
        )

    assert done.returncode == 0, done.stderr
    said = json.loads(result.read_text())
    assert said["counts_sha256"] == spectrum.counts_sha256
    assert said["counts_sha256"] in done.stdout
    # The tasks ran here, not in a cluster of the script's own.
    assert {name.rpartition(":")[2] for name in said["workers"]} == {str(os.getpid())}
    assert [peak["name"] for peak in said["peaks"]][0::5] == ["J/psi(1S)", "Z"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no files: make some"),
        (["nowhere.root"], "nowhere.root is no file"),
        ([__file__], "is not a ROOT file"),
        ([__file__, "--scales", "0"], "--scales is 1 or more, got 0"),
    ],
)
def test_wrong_words_are_answered_in_one_line(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["dimuon.py", *words])

    with pytest.raises(SystemExit) as stopped:
        dimuon.parse_options()

    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_fit_with_too_few_pairs_says_so() -> None:
    with pytest.raises(SystemExit, match="76 to 106 GeV found no curve: 0 pairs there"):
        dimuon.fit(dimuon.new_histogram(1), dimuon.WINDOWS[2])


def test_a_file_without_muons_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.root"
    with uproot.recreate(path) as file:
        file.mktree("Events", {"MET_pt": "float32"})

    with pytest.raises(ValueError, match=r"empty\.root has no tree with muons"):
        dimuon.read_muons(path.read_bytes(), path.name)
