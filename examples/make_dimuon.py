"""Make ROOT files of toy muon events: five resonances over a falling background.

    python make_dimuon.py data/ --files 6 --events 100000 --seed 1

Every file holds several TTrees (Run2016, Run2017, Run2018) with the muon branches of
CMS NanoAOD: nMuon, Muon_pt, Muon_eta, Muon_phi and Muon_charge, in GeV and radians.
Masses and widths are those of the Particle Data Group: S. Navas et al., Review of
Particle Physics, Phys. Rev. D 110, 030001 (2024), https://pdg.lbl.gov.

A parent with a mass, a transverse momentum and a rapidity decays into two muons,
isotropically in its own frame; the detector blurs each pT by 1 % and loses what is too
soft or too far forward. Lines have the Breit-Wigner shape in m. There is no radiation,
no trigger and no polarisation: it is a toy, but its kinematics are exact.

A file depends on the seed and its own number only, so more files never change the
first ones. Only the date and identifier inside the ROOT format differ between runs.

More events: make more files, not larger ones. 100 000 events are 2.6 MB, and above
10 MB (380 000 events) Dask warns that the argument of a task is large.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Source(NamedTuple):
    """Where muon pairs come from; energies are in GeV."""

    name: str
    mass: float
    width: float
    share: float  # of all events, before the detector loses some
    mean_pt: float


RESONANCES = (
    Source("J/psi(1S)", mass=3.096900, width=92.6e-6, share=0.10, mean_pt=14.0),
    Source("psi(2S)", mass=3.686097, width=293e-6, share=0.012, mean_pt=14.0),
    Source("Upsilon(1S)", mass=9.46040, width=54.0e-6, share=0.05, mean_pt=10.0),
    Source("Upsilon(2S)", mass=10.0234, width=32.0e-6, share=0.02, mean_pt=10.0),
    Source("Upsilon(3S)", mass=10.3551, width=20.3e-6, share=0.014, mean_pt=10.0),
    Source("Z", mass=91.1880, width=2.4955, share=0.10, mean_pt=16.0),
)
BACKGROUND_PT = 13.0
MUON_MASS = 0.1056583755

# The background falls as m to this power, between these masses: Drell-Yan and heavy
# flavour together fall about so. The ends lie outside of what the analysis looks at.
BACKGROUND_POWER = -2.1
BACKGROUND_RANGE = (1.5, 200.0)

# A Breit-Wigner has no end; 14 widths (35 GeV for the Z) are more than any fit sees.
WIDTHS_KEPT = 14.0

RESOLUTION = 0.01  # of pT, what a good tracker has for muons of 5 to 50 GeV
SOFTEST_PT = 2.0  # below, a muon stops before it reaches the muon chambers
WIDEST_ETA = 2.5
WIDEST_RAPIDITY = 2.4  # of the parent

# Events which the selection of the analysis must sort out.
SAME_SIGN = 0.4  # of the background: two muons that do not belong together
ALONE = 0.15  # of the background: one muon only
THIRD = 0.08  # of all events: one more muon, from somewhere else

# The share of each tree among the events of a file: three years, unequal as in life.
TREES = {"Run2016": 0.25, "Run2017": 0.3, "Run2018": 0.45}


class Muons(NamedTuple):
    """Three places for muons in each event: arrays of shape (events, 3)."""

    pt: Floats
    eta: Floats
    phi: Floats
    charge: npt.NDArray[np.int32]
    seen: Bools


def main() -> None:
    """Write the files which the command line asks for."""
    options = parse_options()
    options.folder.mkdir(parents=True, exist_ok=True)
    for number in range(options.files):
        path = options.folder / f"dimuon-{number}.root"
        write_file(path, options.events, seed=options.seed, number=number)
        print(f"{path}: {options.events} events, {path.stat().st_size / 1e6:.1f} MB")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Make ROOT files of toy muon events.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--files", type=positive, default=6, help="how many files")
    parser.add_argument(
        "--events", type=positive, default=100_000, help="events in each file"
    )
    parser.add_argument("--seed", type=natural, default=1, help="of the random numbers")
    return parser.parse_args()


def positive(text: str) -> int:
    """Read a whole number above zero."""
    if (number := int(text)) < 1:
        message = f"expected 1 or more, got {text}"
        raise argparse.ArgumentTypeError(message)
    return number


def natural(text: str) -> int:
    """Read a whole number, zero or more."""
    if (number := int(text)) < 0:
        message = f"expected 0 or more, got {text}"
        raise argparse.ArgumentTypeError(message)
    return number


def write_file(path: Path, events: int, *, seed: int, number: int) -> None:
    """Write one ROOT file with this many events, shared among its trees."""
    rng = np.random.default_rng([seed, number])
    ends = np.round(np.cumsum(list(TREES.values())) * events).astype(int)
    sizes = np.diff(ends, prepend=0)
    with uproot.recreate(path) as file:
        for (index, name), size in zip(enumerate(TREES, 1), sizes, strict=True):
            columns = {
                # Event numbers are unique in a tree of a file; the run tells the file.
                "run": np.full(size, 1000 * index + number, dtype=np.uint32),
                "event": np.arange(size, dtype=np.uint64),
                "Muon": jagged(make_muons(int(size), rng)),
            }
            # Assigning `file[name] = columns` would write an RNTuple, not a TTree.
            types = {key: ak.type(column).content for key, column in columns.items()}
            file.mktree(name, types).extend(columns)


def jagged(muons: Muons) -> Any:  # noqa: ANN401 - awkward arrays are not typed
    """Keep only the muons seen, the hardest first, as NanoAOD does."""
    order = np.argsort(np.where(muons.seen, -muons.pt, 0.0), axis=1, kind="stable")
    seen = np.take_along_axis(muons.seen, order, axis=1)

    def flat(column: npt.NDArray[Any], kind: type[np.generic]) -> npt.NDArray[Any]:
        return np.take_along_axis(column, order, axis=1)[seen].astype(kind)

    fields = {
        "pt": flat(muons.pt, np.float32),
        "eta": flat(muons.eta, np.float32),
        "phi": flat(muons.phi, np.float32),
        "charge": flat(muons.charge, np.int32),
    }
    return ak.unflatten(ak.zip(fields), seen.sum(axis=1))


def make_muons(events: int, rng: np.random.Generator) -> Muons:
    """Draw events: a pair from one of the sources, now and then a third muon."""
    shares = np.array([source.share for source in RESONANCES])
    chances = np.append(shares, 1 - shares.sum())
    kind = rng.choice(len(chances), size=events, p=chances)
    background = kind == len(RESONANCES)

    pt, eta, phi = decay(draw_masses(kind, rng), draw_pt(kind, rng), rng)
    pt, eta, phi = (
        np.column_stack([pair, third])
        for pair, third in zip((pt, eta, phi), draw_third(events, rng), strict=True)
    )
    pt *= rng.normal(1.0, RESOLUTION, size=pt.shape)

    seen = (pt > SOFTEST_PT) & (np.abs(eta) < WIDEST_ETA)
    seen[:, 1] &= ~(background & (rng.random(events) < ALONE))
    seen[:, 2] &= rng.random(events) < THIRD
    return Muons(pt, eta, phi, draw_charges(background, rng), seen)


def draw_masses(kind: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Draw one mass an event: a Breit-Wigner line, or the falling background."""
    mass = np.array([source.mass for source in RESONANCES] + [0.0])
    width = np.array([source.width for source in RESONANCES] + [0.0])
    limit = np.arctan(2 * WIDTHS_KEPT)
    lines = mass[kind] + width[kind] / 2 * np.tan(rng.uniform(-limit, limit, kind.size))

    low, high = np.array(BACKGROUND_RANGE) ** (BACKGROUND_POWER + 1)
    falling = rng.uniform(high, low, kind.size) ** (1 / (BACKGROUND_POWER + 1))
    return np.where(kind == len(RESONANCES), falling, lines)


def draw_pt(kind: npt.NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """Draw the parent's transverse momentum: it rises from zero, then falls."""
    mean = np.array([source.mean_pt for source in RESONANCES] + [BACKGROUND_PT])
    drawn: Floats = rng.gamma(2.0, mean[kind] / 2)
    return drawn


def decay(
    mass: Floats, pt: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Let parents decay into two muons; (pt, eta, phi) of shape (events, 2)."""
    events = mass.size
    angle = rng.uniform(-np.pi, np.pi, events)
    rapidity = rng.uniform(-WIDEST_RAPIDITY, WIDEST_RAPIDITY, events)
    parent = np.array(
        [
            pt * np.cos(angle),
            pt * np.sin(angle),
            np.hypot(mass, pt) * np.sinh(rapidity),
        ]
    )
    energy = np.hypot(mass, pt) * np.cosh(rapidity)

    # In the frame of the parent: back to back, with half of the mass each.
    size = np.sqrt(mass**2 / 4 - MUON_MASS**2)
    muon = size * draw_directions(events, rng)

    # The boost to the laboratory adds a part along the parent's momentum, which has
    # the term of the energy in common and the term of the momentum with either sign.
    along = (parent * muon).sum(axis=0)
    common = parent / 2
    apart = muon + parent * along / (mass * (energy + mass))
    x, y, z = np.stack([common + apart, common - apart], axis=-1)
    transverse = np.hypot(x, y)
    return transverse, np.arcsinh(z / transverse), np.arctan2(y, x)


def draw_directions(events: int, rng: np.random.Generator) -> Floats:
    """Draw unit vectors, uniform on the sphere, of shape (3, events)."""
    cosine = rng.uniform(-1, 1, events)
    sine = np.sqrt(1 - cosine**2)
    angle = rng.uniform(-np.pi, np.pi, events)
    return np.array([sine * np.cos(angle), sine * np.sin(angle), cosine])


def draw_third(events: int, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Draw soft muons that belong to nobody: (pt, eta, phi)."""
    pt = SOFTEST_PT + rng.exponential(3.0, events)
    eta = rng.uniform(-WIDEST_ETA, WIDEST_ETA, events)
    phi = rng.uniform(-np.pi, np.pi, events)
    return pt, eta, phi


def draw_charges(background: Bools, rng: np.random.Generator) -> npt.NDArray[np.int32]:
    """Draw charges: opposite in a pair, but for a part of the background."""
    first, third = rng.choice(np.array([-1, 1], dtype=np.int32), (2, background.size))
    same = background & (rng.random(background.size) < SAME_SIGN)
    return np.column_stack([first, np.where(same, first, -first), third])


if __name__ == "__main__":
    main()
