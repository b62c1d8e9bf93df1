"""The figure as matplotlib draws it. No window, no global state: usable in threads and services."""

from __future__ import annotations

import io
import math
import textwrap
from typing import IO, TYPE_CHECKING, Any

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.drawing import import_matplotlib
from ptycho_runtime.image.figure import MAP
from ptycho_runtime.image.paper.page import Page, Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

DPI = 200
_NOTEBOOK_DPI = 100
_COLUMNS = 2
_PANEL_INCHES = 4.2
_CAPTION_LETTERS = 140  # in a line of two panels' width
_VERDICT_COLOURS = {"trusted": "#006e28", "doubtful": "#aa5f00", "not trusted": "#be0000"}
_NOTHING = "#ebeef2"
# matplotlib's own, perceptually even; "twilight" begins and ends with the same colour.
_MAPS = {"grey": "gray", "cyclic": "twilight", "sequential": "viridis"}


def draw(page: Page) -> Figure:
    """Return the figure of a page."""
    import_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that notebooks show whatever backend they have chosen."""

        def _repr_png_(self) -> bytes:
            memory = io.BytesIO()
            self.savefig(memory, format="png", dpi=_NOTEBOOK_DPI)
            return memory.getvalue()

    rows = math.ceil(len(page.panels) / _COLUMNS)
    share = min(max((page.y[1] - page.y[0]) / (page.x[1] - page.x[0]), 0.3), 2.0)
    caption = textwrap.fill(page.caption, _CAPTION_LETTERS)
    below = 0.3 + 0.16 * (caption.count("\n") + 1)
    height = rows * (_PANEL_INCHES * 0.69 * share + 0.75) + 0.65 + below
    figure = Shown(figsize=(_COLUMNS * _PANEL_INCHES + 0.8, height), layout="constrained")
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, below / height, 1, 1 - (below + 0.55) / height), w_pad=0.08, h_pad=0.08)
    figure.text(0.5, 1 - 0.22 / height, _plain(page.title), ha="center", va="center", fontsize=12, weight="bold")
    colour = _VERDICT_COLOURS[page.verdict.removesuffix(" (partial)")]
    figure.text(0.5, 1 - 0.45 / height, page.verdict, ha="center", va="center", fontsize=11, color=colour)
    figure.text(0.02, 0.12 / height, _plain(caption), ha="left", va="bottom", fontsize=8)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    axes = [axis for line in grid for axis in line]
    for axis, panel in zip(axes, page.panels, strict=False):
        _show(axis, panel, page)
    for axis in axes[len(page.panels) :]:
        axis.set_axis_off()
    return figure


def _show(axis: Axes, panel: Panel, page: Page) -> None:
    """Draw one panel with its axes, colour bar and scale bar."""
    extent = (page.x[0], page.x[1], page.y[1], page.y[0])
    colours = _colours(panel)
    image = axis.imshow(
        panel.values, cmap=colours, vmin=panel.low, vmax=panel.high, extent=extent, interpolation="nearest"
    )
    axis.set_facecolor(_NOTHING)
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel(f"x ({page.unit})")
    axis.set_ylabel(f"y ({page.unit})")
    bar = axis.figure.colorbar(image, ax=axis, fraction=0.046, pad=0.03)
    bar.set_label(panel.unit)
    if panel.colours == "cyclic":
        bar.set_ticks([-math.pi, -math.pi / 2, 0, math.pi / 2, math.pi], labels=["−π", "−π/2", "0", "π/2", "π"])
    if panel.colours == "trust" and len(page.flagged):
        axis.plot(*page.flagged.T, "x", color="#00dcff", markersize=5, label="flagged")
        axis.legend(loc="upper right", fontsize=8)
    _add_scale_bar(axis, page)


def _colours(panel: Panel) -> Colormap:
    from matplotlib import colormaps
    from matplotlib.colors import LinearSegmentedColormap

    if panel.colours == "trust":
        return LinearSegmentedColormap.from_list("trust", [tuple(colour) for colour in MAP / 255.0])
    return colormaps[_MAPS[panel.colours]]


def _add_scale_bar(axis: Axes, page: Page) -> None:
    """Draw a bar of round length in the lower left corner, on a ground that lets it stand out from any image."""
    from matplotlib.patches import Rectangle

    width, height = page.x[1] - page.x[0], page.y[1] - page.y[0]
    left, low = page.x[0] + 0.04 * width, page.y[1] - 0.05 * height
    thick = 0.012 * height
    ground = (left - 0.02 * width, low + thick + 0.02 * height)
    axis.add_patch(
        Rectangle(ground, page.bar + 0.04 * width, -(thick + 0.105 * height), facecolor="white", alpha=0.8, linewidth=0)
    )
    axis.add_patch(Rectangle((left, low), page.bar, thick, facecolor="black", linewidth=0))
    axis.text(left + page.bar / 2, low - 0.012 * height, page.bar_label, ha="center", va="bottom", fontsize=8)


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for mathematics."""
    return text.replace("$", r"\$")


def save(figure: Figure, file: IO[bytes], suffix: str, provenance: dict[str, str]) -> None:
    """Write a figure as PNG with 200 dots an inch, or as SVG or PDF; with the mark of this project and what made it."""
    from matplotlib import rc_context

    kind = suffix.lower().removeprefix(".")
    said = "; ".join(f"{name} {text}" for name, text in provenance.items())
    metadata: dict[str, dict[str, Any]] = {
        "png": {"Software": CREATOR} | {name: _ascii(text) for name, text in provenance.items()},
        "svg": {"Creator": CREATOR, "Date": None, "Description": said},
        "pdf": {"Creator": CREATOR, "CreationDate": None, "Subject": _ascii(said)},
    }
    # Letters stay letters, and the same figure is the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": CREATOR, "pdf.fonttype": 42}):
        figure.savefig(file, format=kind, dpi=DPI, metadata=metadata[kind])


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
