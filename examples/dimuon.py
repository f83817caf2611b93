"""The dimuon spectrum: opposite-sign muon pairs, their masses, and a fit to each peak.

    python make_dimuon.py data/
    python dimuon.py data/*.root --scales 200

An ordinary analysis on Dask. `Client()` finds the scheduler in the settings of Dask
(DASK_SCHEDULER_ADDRESS) and starts a cluster on this machine if there is none.

The workers share no disk with us, so the bytes of a file travel as the argument of a
task. Scattered data would be lost with the worker that holds it; an argument stays with
the scheduler, which runs the task again elsewhere. One task a file reads the muons;
then one for each few variations of the momentum scale selects pairs and counts them.

Counts are integers and masses are computed in double precision: the sum is the same,
bit by bit, in whatever order and on however many workers it was made.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import awkward as ak
import hist
import numpy as np
import numpy.typing as npt
import uproot
from distributed import Client, Future, as_completed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

MUON_MASS = 0.1056583755  # GeV, like every energy here
LOWEST_PT = 3.0
WIDEST_ETA = 2.4

# 0.2 % a bin: the narrow peaks are 0.7 % wide (r.m.s.), so each has many bins.
MASS_BINS = 2000
MASS_RANGE = (2.0, 120.0)
BINS_DRAWN_AS_ONE = 5

# How well the momentum scale is known: variations lie evenly within +- this much.
SCALE_UNCERTAINTY = 0.002

# File bytes times variations in one task: about 0.3 s of work. Shorter tasks would wait
# for the scheduler more than they work; longer ones cost more when a worker is lost.
WORK_PER_TASK = 25_000_000


class Peak(NamedTuple):
    """A resonance of the Review of Particle Physics (2024), https://pdg.lbl.gov."""

    name: str
    label: str
    mass: float
    width: float
    mark: str = ""  # in the whole spectrum, where the label of each has no room


class Window(NamedTuple):
    """Neighbouring peaks that are fitted together, and where."""

    low: float
    high: float
    peaks: tuple[Peak, ...]


UPSILONS = r"$\Upsilon(1S, 2S, 3S)$"
WINDOWS = (
    Window(
        2.75,
        4.05,
        (
            Peak("J/psi(1S)", r"$J/\psi$", 3.096900, 92.6e-6, r"$J/\psi$"),
            Peak("psi(2S)", r"$\psi(2S)$", 3.686097, 293e-6, r"$\psi(2S)$"),
        ),
    ),
    Window(
        8.4,
        11.5,
        (
            Peak("Upsilon(1S)", r"$\Upsilon(1S)$", 9.46040, 54.0e-6, UPSILONS),
            Peak("Upsilon(2S)", r"$\Upsilon(2S)$", 10.0234, 32.0e-6),
            Peak("Upsilon(3S)", r"$\Upsilon(3S)$", 10.3551, 20.3e-6),
        ),
    ),
    Window(76.0, 106.0, (Peak("Z", r"$Z$", 91.1880, 2.4955, r"$Z$"),)),
)


# What runs on the workers ------------------------------------------------------------
# These functions travel by value, with the globals they name and nothing else: workers
# need NumPy, Awkward, Uproot and hist, but neither SciPy nor Matplotlib.


def read_muons(raw: bytes, name: str) -> Any:  # noqa: ANN401 - awkward is not typed
    """Read the muons, a list in each event, of all trees in a ROOT file."""
    wanted = {column: f"Muon_{column}" for column in ("pt", "eta", "phi", "charge")}
    found = []
    with uproot.open(io.BytesIO(raw)) as file:
        for tree in file.values(filter_classname="TTree"):
            if "Muon_pt" in tree:
                branches = tree.arrays(list(wanted.values()))
                found.append(ak.zip({key: branches[wanted[key]] for key in wanted}))
    if not found:
        message = f"{name} has no tree with muons: no branch Muon_pt"
        raise ValueError(message)
    # In single precision the last bit of a mass, which is not the same on every kind
    # of processor, would now and then move a pair to the next bin.
    return ak.values_astype(ak.concatenate(found), np.float64)


def fill(
    muons: Any,  # noqa: ANN401 - as above
    scales: list[float],
) -> tuple[Counts, int, str]:
    """Count the pairs by mass, one row a scale; returns (counts, events, where)."""
    part = new_histogram(len(scales))
    for row, scale in enumerate(scales):
        part.fill(variation=row, mass=pair_masses(muons, scale))
    return part.values(), len(muons), f"{socket.gethostname()}:{os.getpid()}"


def pair_masses(muons: Any, scale: float) -> Floats:  # noqa: ANN401 - as above
    """Scale the momenta, select, and return the masses of opposite-sign pairs."""
    muons = ak.with_field(muons, muons.pt * scale, "pt")
    good = muons[(muons.pt > LOWEST_PT) & (abs(muons.eta) < WIDEST_ETA)]
    pairs = ak.combinations(good, 2, fields=["a", "b"])
    a, b = ak.unzip(ak.flatten(pairs[pairs.a.charge != pairs.b.charge]))

    energies = np.hypot(a.pt * np.cosh(a.eta), MUON_MASS)
    energies = energies * np.hypot(b.pt * np.cosh(b.eta), MUON_MASS)
    product = np.cos(a.phi - b.phi) + np.sinh(a.eta) * np.sinh(b.eta)
    squares = 2 * (MUON_MASS**2 + energies - a.pt * b.pt * product)
    masses: Floats = np.sqrt(ak.to_numpy(squares))
    return masses


def new_histogram(variations: int) -> Any:  # noqa: ANN401 - hist is typed in part
    """Make an empty histogram: variations by mass, with integer counts."""
    return hist.Hist(
        hist.axis.Integer(0, variations, name="variation", flow=False),
        hist.axis.Regular(
            MASS_BINS,
            *MASS_RANGE,
            name="mass",
            label=r"$m_{\mu\mu}$ [GeV]",
            transform=hist.axis.transform.log,
        ),
        storage=hist.storage.Int64(),
    )


# What runs here ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The sum over all files, and who worked for it."""

    histogram: Any
    events: int
    workers: Counter[str]  # "host:process" to the tasks it did
    seconds: float

    @property
    def counts_sha256(self) -> str:
        """The digest of all counts: equal if and only if the histograms are."""
        counts = self.histogram.values().astype("<i8")
        return hashlib.sha256(counts.tobytes()).hexdigest()

    @property
    def hosts(self) -> list[str]:
        """The machines that did the tasks."""
        return sorted({worker.rpartition(":")[0] for worker in self.workers})


@dataclass(frozen=True, slots=True)
class FittedPeak:
    """What a fit says of one peak; masses and errors in GeV."""

    name: str
    mass: float
    error: float
    scale_error: float  # from the momentum scale; 0 if it was not varied
    pdg: float
    pairs: float

    @property
    def pull(self) -> float:
        """The distance from the real mass in statistical errors."""
        return (self.mass - self.pdg) / self.error


@dataclass(frozen=True, slots=True)
class WindowFit:
    """The curve in one window: edges and counts of its bins, and the parameters."""

    window: Window
    edges: Floats
    counts: Counts
    parameters: Floats
    errors: Floats

    @property
    def centres(self) -> Floats:
        """The middle of each bin."""
        middles: Floats = (self.edges[1:] + self.edges[:-1]) / 2
        return middles

    @property
    def expected(self) -> Floats:
        """The counts which the curve expects."""
        return curve(self.window, self.centres, self.parameters) * np.diff(self.edges)

    @property
    def pulls(self) -> Floats:
        """The distance of each count from the curve, in standard deviations."""
        pulls: Floats = (self.counts - self.expected) / np.sqrt(self.expected)
        return pulls


def main() -> None:
    """Run the analysis which the command line asks for."""
    options = parse_options()
    scales = momentum_scales(options.scales)
    with Client() as client:
        spectrum = analyse(client, options.files, scales)
    fits = [fit(spectrum.histogram, window) for window in WINDOWS]
    peaks = list(fitted_peaks(spectrum.histogram, fits))

    print_table(spectrum, peaks)
    draw(spectrum, fits, peaks).savefig(options.out, dpi=130)
    if options.json:
        options.json.write_text(json.dumps(summary(spectrum, peaks), indent=2) + "\n")


def parse_options() -> argparse.Namespace:
    """Read the command line and see that the files are there."""
    parser = argparse.ArgumentParser(description="Fit the dimuon spectrum.")
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.root")
    parser.add_argument("--out", type=Path, default=Path("dimuon.png"), help="picture")
    parser.add_argument("--json", type=Path, help="write the results here, too")
    parser.add_argument(
        "--scales",
        type=int,
        default=1,
        metavar="N",
        help="variations of the momentum scale, the nominal one included; more work",
    )
    options = parser.parse_args()
    if not options.files:
        parser.error("no files: make some with `python make_dimuon.py data/`")
    if options.scales < 1:
        parser.error(f"--scales is 1 or more, got {options.scales}")
    for path in options.files:
        if not path.is_file():
            parser.error(f"{path} is no file: `python make_dimuon.py data/` makes some")
        with path.open("rb") as file:
            if file.read(4) != b"root":
                parser.error(f"{path} is not a ROOT file: it does not begin with root")
    return options


def momentum_scales(count: int) -> list[float]:
    """Return the nominal scale and then count - 1 others, evenly, from low to high."""
    varied = np.linspace(-SCALE_UNCERTAINTY, SCALE_UNCERTAINTY, count - 1)
    return [1.0, *(1 + varied).tolist()]


def analyse(client: Client, files: list[Path], scales: list[float]) -> Spectrum:
    """Send the files and the tasks, and add up the counts as they come back."""
    started = time.monotonic()
    total = new_histogram(len(scales))
    events, workers = 0, Counter[str]()
    rows = dict(submit(client, files, scales))
    tasks = len(rows)
    finished = as_completed(list(rows), with_results=True)
    firsts = {future.key: first for future, first in rows.items()}
    del rows  # a future held here would keep its counts on the worker

    for future, (counts, seen, where) in finished:
        first = firsts[future.key]
        total.view()[first : first + len(counts)] += counts
        events += seen if first == 0 else 0
        workers[where] += 1
        show_progress(workers, tasks)
    return Spectrum(total, events, workers, time.monotonic() - started)


def submit(
    client: Client, files: list[Path], scales: list[float]
) -> Iterator[tuple[Future[Any], int]]:
    """Submit all tasks; yields the future of each with the first of its variations."""
    for path in files:
        # One call a file: as one graph, the bytes of all files would be one message.
        raw = path.read_bytes()
        muons = client.submit(read_muons, raw, path.name, pure=False)
        chunk = max(1, round(WORK_PER_TASK / len(raw)))
        for first in range(0, len(scales), chunk):
            part = scales[first : first + chunk]
            yield client.submit(fill, muons, part, pure=False), first


def show_progress(workers: Counter[str], tasks: int) -> None:
    """Keep one line on the terminal; in a log, only the last one."""
    done = workers.total()
    if sys.stderr.isatty() or done == tasks:
        line = f"{done} of {tasks} tasks, {len(workers)} workers"
        print(f"\r{line}", end="\n" if done == tasks else "", file=sys.stderr)


# The fit -----------------------------------------------------------------------------

# Some pairs for each of the up to ten parameters; with fewer, anything fits.
FEWEST_PAIRS = 50
# With little data a curve may pass through zero, where a bin would weigh infinitely.
LEAST_VARIANCE = 0.1


def curve(window: Window, mass: Floats, parameters: Floats) -> Floats:
    """Pairs per GeV: a parabola in log-log, and a Voigt profile for each peak.

    Parameters: three of the background, the relative resolution, which neighbours
    share, then mass and pairs of each peak. The natural widths are fixed.
    """
    from scipy.special import voigt_profile  # noqa: PLC0415 - not needed by workers

    a, b, c, resolution = parameters[:4]
    distance = np.log(mass / window.peaks[0].mass)
    density: Floats = np.exp(a + b * distance + c * distance**2)
    for peak, at, pairs in zip(
        window.peaks, parameters[4::2], parameters[5::2], strict=True
    ):
        profile = voigt_profile(mass - at, resolution * at, peak.width / 2)
        density = density + pairs * profile
    return density


def fit(histogram: Any, window: Window, variation: int = 0) -> WindowFit:  # noqa: ANN401
    """Fit the peaks of a window to one variation of the histogram."""
    from scipy.optimize import curve_fit  # noqa: PLC0415 - not needed by workers

    edges = histogram.axes["mass"].edges
    inside = (edges[:-1] >= window.low) & (edges[1:] <= window.high)
    counts = histogram.values()[variation][inside]
    edges = edges[np.append(inside, False) | np.insert(inside, 0, False)]
    if counts.sum() < FEWEST_PAIRS:
        raise SystemExit(no_curve(window, counts))
    result = WindowFit(window, edges, counts, *first_guess(window, edges, counts))

    # The errors are those of the counts first, then those which the curve expects: the
    # former alone would pull the curve to bins that are low by chance.
    widths = np.diff(edges)
    variances = counts + 1.0
    try:
        for _ in range(2):
            parameters, covariance = curve_fit(
                lambda mass, *values: curve(window, mass, np.array(values)),
                result.centres,
                counts / widths,
                p0=result.parameters,
                sigma=np.sqrt(variances) / widths,
                absolute_sigma=True,
            )
            errors = np.sqrt(np.diag(covariance))
            result = WindowFit(window, edges, counts, parameters, errors)
            variances = np.maximum(result.expected, LEAST_VARIANCE)
    except RuntimeError as error:
        raise SystemExit(no_curve(window, counts)) from error
    return result


def no_curve(window: Window, counts: Counts) -> str:
    """Say that a fit came to nothing, as it does with too little data."""
    where = f"from {window.low:g} to {window.high:g} GeV"
    return f"the fit {where} found no curve: {counts.sum()} pairs there"


def first_guess(window: Window, edges: Floats, counts: Counts) -> tuple[Floats, Floats]:
    """Start at the real masses, with a flat background as high as the window's ends."""
    ends = np.concatenate([counts[:20], counts[-20:]])
    floor = max(float(ends.mean() / np.diff(edges).mean()), 1.0)
    guess = [np.log(floor), 0.0, 0.0, 0.007]
    for peak in window.peaks:
        near = np.abs(edges[:-1] / peak.mass - 1) < 0.015 + peak.width / peak.mass
        above = counts[near].sum() - floor * np.diff(edges)[near].sum()
        guess += [peak.mass, max(float(above), 1.0)]
    return np.array(guess), np.zeros(len(guess))


def fitted_peaks(histogram: Any, fits: list[WindowFit]) -> Iterator[FittedPeak]:  # noqa: ANN401
    """Read the masses off the fits; the outermost variations give the scale error."""
    last = histogram.axes["variation"].size - 1
    for found in fits:
        shift = np.zeros_like(found.parameters)
        if last > 1:
            low, high = (fit(histogram, found.window, row) for row in (1, last))
            shift = np.abs(high.parameters - low.parameters) / 2
        for index, peak in enumerate(found.window.peaks):
            at = 4 + 2 * index
            yield FittedPeak(
                peak.name,
                mass=float(found.parameters[at]),
                error=float(found.errors[at]),
                scale_error=float(shift[at]),
                pdg=peak.mass,
                pairs=float(found.parameters[at + 1]),
            )


# What comes out ----------------------------------------------------------------------


def print_table(spectrum: Spectrum, peaks: list[FittedPeak]) -> None:
    """Print the masses beside those of the Particle Data Group."""
    pairs = int(spectrum.histogram.values()[0].sum())
    print(f"{spectrum.events} events, {pairs} pairs, {spectrum.seconds:.1f} s")
    print(f"{spectrum.workers.total()} tasks on {', '.join(spectrum.hosts)}\n")
    print("peak            fitted [GeV]   +- stat   +- scale   PDG [GeV]   pull")
    for peak in peaks:
        print(
            f"{peak.name:12}  {peak.mass:14.5f} {peak.error:9.5f}"
            f" {peak.scale_error:10.5f} {peak.pdg:11.5f} {peak.pull:+6.1f}"
        )
    print(f"\ncounts {spectrum.counts_sha256}")


def summary(spectrum: Spectrum, peaks: list[FittedPeak]) -> dict[str, Any]:
    """Return the results as plain values, for JSON."""
    counts = spectrum.histogram.values()
    return {
        "events": spectrum.events,
        "pairs": int(counts[0].sum()),
        "scales": len(counts),
        "counts_sha256": spectrum.counts_sha256,
        "tasks": spectrum.workers.total(),
        "workers": dict(spectrum.workers),
        "hosts": spectrum.hosts,
        "seconds": round(spectrum.seconds, 3),
        "peaks": [asdict(peak) for peak in peaks],
    }


INK, LINE, BAND, FILL = "#1b2a41", "#c8371d", "#f3b49f", "#d5e0ee"


def draw(spectrum: Spectrum, fits: list[WindowFit], peaks: list[FittedPeak]) -> Figure:
    """Draw the whole spectrum, and each window with its fit and pulls below."""
    # A worker started on this machine imports this file, but never draws.
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 9.5), layout="constrained")
    grid = figure.add_gridspec(3, len(fits), height_ratios=[2.4, 2, 0.7])
    draw_spectrum(figure.add_subplot(grid[0, :]), spectrum)
    for column, found in enumerate(fits):
        above = figure.add_subplot(grid[1, column])
        below = figure.add_subplot(grid[2, column], sharex=above)
        draw_fit(above, found, spectrum.histogram)
        label_fit(above, found, {peak.name: peak for peak in peaks})
        draw_pulls(below, found)
        if column == 0:
            above.set_ylabel("pairs / bin")
            below.set_ylabel("pull")
            if above.get_legend_handles_labels()[0]:
                above.legend(loc="center right", frameon=False)
    return figure


def draw_spectrum(axes: Axes, spectrum: Spectrum) -> None:
    """Draw all masses, log-log, and name the peaks."""
    coarse = spectrum.histogram[0, :: hist.rebin(BINS_DRAWN_AS_ONE)]
    counts, edges = coarse.values(), coarse.axes[0].edges
    axes.stairs(counts, edges, fill=True, color=FILL)
    axes.stairs(counts, edges, color=INK, linewidth=1.1)
    axes.set(xscale="log", yscale="log", xlim=MASS_RANGE)
    lowest = max(float(counts[counts > 0].min()), 1.0)
    axes.set_ylim(lowest / 2, counts.max() * 4)

    for peak in (each for window in WINDOWS for each in window.peaks if each.mark):
        top = counts[np.abs(edges[:-1] / peak.mass - 1) < 0.02].max()
        axes.annotate(
            peak.mark,
            (peak.mass, top),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=12,
            color=LINE,
        )
    ticks = [2, 3, 4, 5, 7, 10, 20, 30, 50, 70, 100]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(coarse.axes[0].label, loc="right")
    step = 100 * (edges[1] / edges[0] - 1)
    axes.set_ylabel(f"pairs / {step:.1f} % of mass", loc="top")
    axes.set_title("Opposite-sign muon pairs", loc="left", fontweight="bold")
    pairs = int(counts.sum())
    axes.set_title(
        f"toy data: {spectrum.events:,} events, {pairs:,} pairs", loc="right"
    )
    axes.tick_params(which="both", direction="in", top=True, right=True)


def draw_fit(axes: Axes, found: WindowFit, histogram: Any) -> None:  # noqa: ANN401
    """Draw the counts of one window, the fitted curve and its background."""
    window, edges = found.window, found.edges
    first = int(np.searchsorted(histogram.axes["mass"].edges, edges[0]))
    varied = histogram.values()[:, first : first + found.counts.size]
    if len(varied) > 1:
        low, high = varied.min(axis=0), varied.max(axis=0)
        axes.stairs(
            high,
            edges,
            baseline=low,
            fill=True,
            color=BAND,
            label=rf"scale $\pm$ {100 * SCALE_UNCERTAINTY:.1f} %",
        )
    alone = found.parameters.copy()
    alone[5::2] = 0
    background = curve(window, found.centres, alone) * np.diff(edges)
    axes.plot(found.centres, background, "--", color=LINE, linewidth=1.2, zorder=3)
    axes.plot(found.centres, found.expected, color=LINE, linewidth=1.3, zorder=3)
    axes.errorbar(
        found.centres,
        found.counts,
        np.sqrt(found.counts),
        fmt=".",
        color=INK,
        markersize=3,
        linewidth=0.7,
        zorder=4,
    )
    axes.set_xlim(window.low, window.high)
    axes.set_ylim(0, found.counts.max() * 1.45)  # room for the numbers
    axes.tick_params(direction="in", top=True, right=True, labelbottom=False)


def label_fit(axes: Axes, found: WindowFit, peaks: dict[str, FittedPeak]) -> None:
    """Write the fitted masses into the upper corner."""
    lines = []
    for peak in found.window.peaks:
        mass, error = 1000 * peaks[peak.name].mass, 1000 * peaks[peak.name].error
        lines.append(rf"{peak.label}  {mass:.1f} $\pm$ {error:.1f} MeV")
    freedom = found.counts.size - found.parameters.size
    lines.append(rf"$\chi^2$/ndf  {(found.pulls**2).sum():.0f} / {freedom}")
    axes.text(
        0.97, 0.96, "\n".join(lines), transform=axes.transAxes, ha="right", va="top"
    )


def draw_pulls(axes: Axes, found: WindowFit) -> None:
    """Draw how far each bin is from the curve."""
    axes.axhspan(-1, 1, color=FILL, linewidth=0)
    axes.axhline(0, color=LINE, linewidth=1)
    axes.plot(found.centres, found.pulls, ".", color=INK, markersize=3)
    axes.set_ylim(-5, 5)
    axes.set_yticks([-3, 0, 3])
    axes.set_xlabel(r"$m_{\mu\mu}$ [GeV]", loc="right")
    axes.tick_params(direction="in", top=True, right=True)


if __name__ == "__main__":
    main()
