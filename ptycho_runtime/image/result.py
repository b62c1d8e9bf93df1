"""What a reconstruction is: the object, where it lies, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime.files import printable
from ptycho_runtime.image.frc import RingCorrelation
from ptycho_runtime.image.origin import Origin
from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.image.trust.values import Trust
from ptycho_runtime.scan.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture


@dataclass(frozen=True)
class Timing:
    """Where the seconds went."""

    seconds: float
    """From the start of `reconstruct` to its end."""
    session_seconds: float
    """Of these, while a session was running."""
    first_run_seconds: float
    """Of these, the first batch, which waits for plans and memory."""
    verdict_seconds: float
    """Of these, the verdict after the last pattern."""


@dataclass(frozen=True)
class Reconstruction:
    """The stitched object and what is known of it.

    Examples:
        >>> import ptycho_runtime
        >>> from ptycho_runtime import demo
        >>> scan = ptycho_runtime.read_scan(demo.SCAN, options=ptycho_runtime.ReadOptions(domain="intensity", every=8))
        >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model, scan:
        ...     model.reconstruct(scan)
        <Reconstruction of scan.npz: trusted, 138 × 135 px, 19 of 19 groups on cpu>
    """

    canvas: Canvas
    scan: Scan
    input_scale_factor: float
    groups: int
    done: int
    """Groups that are in the object; fewer than `groups` when stopped."""
    device: str
    note: str
    timing: Timing
    trust: Trust
    ring_correlation: RingCorrelation | None = None
    """Of the even and the odd patterns, where it was asked for."""
    engine: str = ""
    """Engine and precision, groups a run and threads: `onnxruntime float32, batch 16, 2 threads`."""
    object_scales: tuple[float, float] | None = None
    """Factors of real and imaginary part that the object was multiplied by; None where nothing was left open."""
    origin: Origin = field(default_factory=Origin)
    """Export, scan, options and time: what every product says of where it comes from."""

    def __repr__(self) -> str:
        """Return what it is in one line."""
        rows, columns = self.object.shape
        partial = "partial, " if self.partial else ""
        return (
            f"<Reconstruction of {printable(self.scan.name)}: {partial}{self.trust.verdict}, {rows} × {columns} px, "
            f"{self.done} of {self.groups} groups on {self.device}>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: verdict, reasons, origin and picture."""
        from ptycho_runtime.image.notebook import to_html

        return to_html(self)

    def plot(self) -> Figure | Picture:
        """Return the figure for a paper: amplitude, phase, its spread among patches and the trust map, with axes and units.

        A matplotlib figure, which notebooks show and `savefig` writes; a plainer pillow picture where matplotlib is not installed.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> scan = ptycho_runtime.read_scan(demo.SCAN, options=ptycho_runtime.ReadOptions(domain="intensity", every=8))
            >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model, scan:
            ...     result = model.reconstruct(scan)
            >>> figure = result.plot()
            >>> [axes.get_title() for axes in figure.axes][:2]
            ['amplitude', 'phase']
        """
        from ptycho_runtime.image.paper.write import figure_of

        return figure_of(self)

    def save(self, path: str | Path, *, figure: str | Path | None = None, force: bool = False) -> list[Path]:
        """Write the result, a PNG beside it, and a figure where one is asked for; each file whole or not at all.

        Args:
            path: the suffix names the format: `.h5` (Ptychodus product), `.npz`, `.cxi`, `.tif` or `.png`.
            figure: name of the figure, `.png`, `.svg` or `.pdf`; none is drawn where None.
            force: overwrite files that this project did not write.

        Returns:
            The files written. A partial result goes beside a complete one, as `NAME.partial.SUFFIX`.

        Raises:
            OutputError: a suffix names no format; a file is an input, somebody else's (unless forced), or cannot be written.
            PackageMissingError: the figure's format needs matplotlib, which is not installed.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> scan = ptycho_runtime.read_scan(demo.SCAN, options=ptycho_runtime.ReadOptions(domain="intensity", every=8))
            >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model, scan:
            ...     result = model.reconstruct(scan)
            >>> [written.name for written in result.save("object.h5")]
            ['object.h5', 'object.png']
        """
        from ptycho_runtime.image.products.target import check_target
        from ptycho_runtime.image.products.write import write_product

        inputs = {"scan": self.origin.scan_path, "bundle": self.origin.bundle_path}
        drawn = None if figure is None else Path(figure)
        return write_product(self, check_target(Path(path), inputs, force=force, figure=drawn))

    @property
    def object(self) -> np.ndarray:
        """The object, (rows, columns) complex64; 0 where nothing was measured."""
        return self.canvas.object

    @property
    def resolution_px(self) -> dict[str, float]:
        """Half-periods by threshold, pixels, where rings were compared."""
        rings = self.ring_correlation
        if rings is None:
            return {}
        return {name: rings.resolution_px(getattr(rings, name)) for name in ("one_bit", "half_bit")}

    @property
    def partial(self) -> bool:
        """Say whether it was stopped before all patterns were in."""
        return self.done < self.groups
