"""The report's pictures: how errors are spread, and the worst and the median group beside their errors."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from exporters.parity.evidence import BINS, Case, Evidence
from ptycho_runtime.metrics import object_field

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DASHES = ("-", "--", ":", "-.")


def pictures(evidence: Evidence) -> list[tuple[str, str]]:
    """Return (caption, PNG as a data URI) of each picture."""
    found = []
    if evidence.histograms:
        caption = "How the errors of all output values are spread, over the largest magnitude of each output"
        found.append((caption, _uri(_histograms(evidence))))
    for case in evidence.shown.values():
        found += case_pictures(case)
    return found


def case_pictures(case: Case) -> list[tuple[str, str]]:
    """Return the worst and the median group of a row; nothing where the row holds no object."""
    got, wanted = object_field(case.found), object_field(case.reference)
    if got is None or wanted is None or got.shape != wanted.shape:
        return []
    errors = case.group_errors()
    order = np.argsort(errors)
    chosen = {"worst": int(order[-1]), "median": int(order[(len(order) - 1) // 2])}
    found = []
    for word, group in chosen.items():
        caption = (
            f"{case.graph}, {case.runtime} on {case.device}: the {word} of {len(errors)} groups "
            f"({case.kinds[group]}), relative error {errors[group]:.1e}"
        )
        found.append((caption, _uri(_maps(got[group, 0], wanted[group, 0]))))
    return found


def _histograms(evidence: Evidence) -> Figure:
    graphs = list(dict.fromkeys(graph for graph, _ in evidence.histograms))
    figure = _figure(10.0, 3.6)
    figure.subplots_adjust(left=0.07, right=0.99, bottom=0.15, top=0.91, wspace=0.25)
    axes = figure.subplots(1, len(graphs), squeeze=False)[0]
    for axis, graph in zip(axes, graphs, strict=True):
        rows = {label: counts for (of, label), counts in evidence.histograms.items() if of == graph}
        for number, (label, counts) in enumerate(rows.items()):
            axis.stairs(counts / max(counts.sum(), 1), BINS, label=label, linestyle=_DASHES[number % 4], linewidth=1.6)
        axis.set_title(graph, fontsize=10)
        axis.set_xlabel("log₁₀ of error / largest magnitude")
        axis.set_ylabel("share of values")
        axis.legend(fontsize=8)
    return figure


def _maps(got: np.ndarray, wanted: np.ndarray) -> Figure:
    finite = np.where(np.isfinite(got), got, 0.0)
    amplitude, phase = np.abs(wanted), np.angle(wanted)
    panels: list[tuple[str, np.ndarray, str]] = [
        ("amplitude", amplitude, "gray"),
        ("phase, rad", phase, "twilight"),
        ("amplitude error", np.abs(np.abs(finite) - amplitude), "magma"),
        ("phase error, rad", np.abs(np.angle(finite * np.conj(wanted))), "magma"),
    ]
    figure = _figure(12.0, 2.8)
    figure.subplots_adjust(left=0.01, right=0.97, bottom=0.03, top=0.92, wspace=0.2)
    for axis, (title, values, colours) in zip(figure.subplots(1, 4), panels, strict=True):
        image: Any = axis.imshow(values, cmap=colours)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        figure.colorbar(image, ax=axis, shrink=0.85)
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110)  # a layout engine would draw each picture twice


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
