"""The report's pictures: how errors are spread, and the worst and the median group beside their errors."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from exporters.parity.evidence import BINS, Case, Evidence, SpeedPoint
from ptycho_runtime import contract
from ptycho_runtime.drawing import import_matplotlib
from ptycho_runtime.metrics import difference, object_field

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DASHES = ("-", "--", ":", "-.")
_WIDTH, _MAP, _SCALE = 4.4, 1.36, 0.08  # of a picture, a map and its colour scale, inches


@dataclass(frozen=True)
class Picture:
    """One picture of the report."""

    caption: str
    alt: str
    """What is seen in it, for those who do not see it."""
    uri: str
    """The PNG as a data URI."""


def pictures(evidence: Evidence) -> list[Picture]:
    """Return the report's pictures: how errors are spread, the worst output as itself, and objects beside their errors."""
    made = []
    if evidence.histograms:
        caption = "How the errors of all output values are spread, over the largest magnitude of each output"
        made.append(Picture(caption, _spread_in_words(evidence), _uri(_histograms(evidence))))
    if evidence.speeds:
        caption = (
            "What reduced precision gains and costs: each way that was tried, on patterns that calibration never saw"
        )
        made.append(Picture(caption, _speeds_in_words(evidence.speeds), _uri(_speeds(evidence.speeds))))
    for case in evidence.worst.values():
        made += output_picture(case)
    for case in evidence.shown.values():
        made += case_pictures(case)
    return made


def output_picture(case: Case) -> list[Picture]:
    """Return the output that came nearest to its limits, drawn as itself; nothing where it is no picture."""
    name = case.worst_output
    got, wanted = case.found.get(name), case.reference.get(name)
    if got is None or wanted is None or got.shape != wanted.shape or wanted.ndim != 4:
        return []
    distances = np.abs(np.nan_to_num(difference(name, got, wanted), nan=np.inf)).max((1, 2, 3))
    group = int(np.argmax(distances))
    error = np.abs(difference(name, got[group, 0], wanted[group, 0]))
    caption = (
        f"{case.graph}, {case.runtime} on {case.device}: {name}, the output nearest to its limits, in the group where it errs most "
        f"({case.kinds[group]})"
    )
    alt = (
        f"{name} from {wanted[group, 0].min():.3g} to {wanted[group, 0].max():.3g} in the reference; the file's differs by at most "
        f"{float(np.nan_to_num(error, nan=np.inf).max()):.1e}"
    )
    # A phase on the whole circle, like the phases beside it.
    unit = ", rad" if name == contract.PHASE else ""
    colours, span = ("twilight", (-np.pi, np.pi)) if name == contract.PHASE else ("gray", None)
    panels = [
        Panel(f"reference{unit}", wanted[group, 0], colours, span),
        Panel(f"difference{unit}", np.where(np.isfinite(error), error, 0.0), "magma"),
    ]
    return [Picture(caption, alt, _uri(_maps(panels)))]


def case_pictures(case: Case) -> list[Picture]:
    """Return the worst and the median group of a row; nothing where the row holds no object."""
    got, wanted = object_field(case.found), object_field(case.reference)
    if got is None or wanted is None or got.shape != wanted.shape:
        return []
    errors = case.group_errors()
    order = np.argsort(errors)
    chosen = {"worst": int(order[-1]), "median": int(order[(len(order) - 1) // 2])}
    made = []
    for word, group in chosen.items():
        caption = (
            f"{case.graph}, {case.runtime} on {case.device}: the object of the {word} of {len(errors)} groups "
            f"({case.kinds[group]}), relative error {errors[group]:.1e}"
        )
        field = np.where(np.isfinite(got[group, 0]), got[group, 0], 0.0)
        reference = wanted[group, 0]
        amplitude = np.abs(reference)
        amplitude_error = np.abs(np.abs(field) - amplitude)
        phase_error = np.abs(np.angle(field * np.conj(reference)))
        panels = [
            Panel("amplitude", amplitude, "gray"),
            Panel("phase, rad", np.angle(reference), "twilight", (-np.pi, np.pi)),
            Panel("amplitude error", amplitude_error, "magma"),
            Panel("phase error, rad", phase_error, "magma"),
        ]
        alt = (
            f"Object with amplitudes from {amplitude.min():.3g} to {amplitude.max():.3g}; the amplitude errs by at most {amplitude_error.max():.1e}, "
            f"the phase by at most {phase_error.max():.1e} rad"
        )
        made.append(Picture(caption, alt, _uri(_maps(panels))))
    return made


def _spread_in_words(evidence: Evidence) -> str:
    """Return where the errors of each graph end."""
    ends = []
    for graph in dict.fromkeys(graph for graph, _ in evidence.histograms):
        total = sum(counts for (of, _), counts in evidence.histograms.items() if of == graph)
        filled = np.flatnonzero(total)
        if len(filled):
            ends.append(f"{graph} up to 10^{BINS[int(filled[-1]) + 1]:.2f}")
    return f"Histograms of relative errors, a line for each runtime: {'; '.join(ends)}"


def _histograms(evidence: Evidence) -> Figure:
    graphs = list(dict.fromkeys(graph for graph, _ in evidence.histograms))
    figure = _figure(_WIDTH, 2.5 * len(graphs))
    figure.subplots_adjust(left=0.15, right=0.98, bottom=0.2 / len(graphs), top=1.0 - 0.12 / len(graphs), hspace=0.55)
    for axis, graph in zip(figure.subplots(len(graphs), 1, squeeze=False)[:, 0], graphs, strict=True):
        rows = {label: counts for (of, label), counts in evidence.histograms.items() if of == graph}
        for number, (label, counts) in enumerate(rows.items()):
            axis.stairs(counts / max(counts.sum(), 1), BINS, label=label, linestyle=_DASHES[number % 4], linewidth=1.6)
        axis.set_title(graph, fontsize=10)
        axis.set_xlabel("log₁₀ of error / largest magnitude", fontsize=9)
        axis.set_ylabel("share of values", fontsize=9)
        axis.tick_params(labelsize=9)
        axis.legend(fontsize=9)
    return figure


def _speeds_in_words(points: list[SpeedPoint]) -> str:
    told = [f"{one.label} {one.times_as_fast:.2f} times as fast, {one.phase_rad:.1e} rad" for one in points]
    return f"Speed over float32 against phase error: {'; '.join(told)}"


def frontier(points: list[SpeedPoint]) -> list[SpeedPoint]:
    """Return the ways that none is faster than and errs less, by speed."""
    best: list[SpeedPoint] = []
    for one in sorted(points, key=lambda point: (-point.times_as_fast, point.phase_rad)):
        if not best or one.phase_rad < best[-1].phase_rad:
            best.append(one)
    return best[::-1]


def _speeds(points: list[SpeedPoint]) -> Figure:
    graphs = list(dict.fromkeys(point.graph for point in points))
    figure = _figure(_WIDTH, 2.9 * len(graphs))
    figure.subplots_adjust(left=0.17, right=0.97, bottom=0.2 / len(graphs), top=1.0 - 0.12 / len(graphs), hspace=0.55)
    for axis, graph in zip(figure.subplots(len(graphs), 1, squeeze=False)[:, 0], graphs, strict=True):
        mine = [point for point in points if point.graph == graph]
        line = frontier(mine)
        axis.plot([p.times_as_fast for p in line], [p.phase_rad for p in line], color="0.6", zorder=1)
        for point in mine:
            colour = "C2" if point.stored else "C0" if point.phase_rad <= point.allowed_rad else "C3"
            axis.scatter(point.times_as_fast, point.phase_rad, color=colour, zorder=2)
            place = (point.times_as_fast, point.phase_rad)
            axis.annotate(
                point.label.partition(" and ")[0], place, (-6, 4), textcoords="offset points", fontsize=7, ha="right"
            )
        axis.axhline(mine[0].allowed_rad, color="0.4", linestyle="--", linewidth=1.0)
        axis.set_yscale("log")
        axis.margins(x=0.35, y=0.18)
        axis.set_title(graph, fontsize=10)
        axis.set_xlabel("times as fast as float32 under onnxruntime", fontsize=9)
        axis.set_ylabel("phase error, rad", fontsize=9)
        axis.tick_params(labelsize=9)
    return figure


@dataclass(frozen=True)
class Panel:
    """One map of a picture."""

    title: str
    values: np.ndarray
    colours: str
    span: tuple[float, float] | None = None
    """Ends of the colour scale; those of the values where None."""


def _maps(panels: list[Panel]) -> Figure:
    """Return maps two in a row, each with a colour scale beside it.

    They are put straight on the figure: with axes for every map and every scale a picture takes more than twice as long.
    """
    rows = -(-len(panels) // 2)
    figure = _figure(_WIDTH, 2.0 * rows)
    for number, panel in enumerate(panels):
        row, column = divmod(number, 2)
        _map(figure, panel, 0.045 + 2.2 * column, 2.0 * (rows - 1 - row) + 0.17)
    return figure


def _map(figure: Figure, panel: Panel, left: float, bottom: float) -> None:
    """Put one map on a figure, its lower left corner at a place in inches."""
    from matplotlib.colors import Normalize
    from matplotlib.image import BboxImage
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator
    from matplotlib.transforms import Bbox, TransformedBbox

    finite = panel.values[np.isfinite(panel.values)]
    if not finite.size:
        finite = np.zeros(1)
    low, high = panel.span or (float(finite.min()), float(finite.max()))
    middle, right = left + _MAP / 2, left + _MAP + 0.08
    ramp = np.linspace(high, low, 256)[:, None]
    for values, start, width in ((panel.values, left, _MAP), (ramp, right, _SCALE)):
        box = TransformedBbox(Bbox.from_bounds(start, bottom, width, _MAP), figure.dpi_scale_trans)
        image = BboxImage(box, cmap=panel.colours, norm=Normalize(low, high))
        image.set_data(values)
        figure.add_artist(image)
    figure.text(middle, bottom + _MAP + 0.06, panel.title, fontsize=10, ha="center", transform=figure.dpi_scale_trans)
    ticks = {f"{tick:.2g}": tick for tick in MaxNLocator(4).tick_values(low, high) if low <= tick <= high}
    if panel.span is not None:
        ticks = {"−π": -np.pi, "0": 0.0, "π": np.pi}
    elif low == high:
        ticks = {f"{low:.2g}": low}
    end = right + _SCALE
    for label, tick in ticks.items():
        height = bottom + _MAP * ((tick - low) / (high - low) if high > low else 0.5)
        figure.add_artist(
            Line2D([end, end + 0.04], [height] * 2, color="black", linewidth=0.8, transform=figure.dpi_scale_trans)
        )
        figure.text(end + 0.07, height, label, fontsize=9, va="center_baseline", transform=figure.dpi_scale_trans)


def _figure(width: float, height: float) -> Figure:
    import_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110)  # a layout engine would draw each picture twice


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
