"""Tables for the terminal beside the report's own: layer by layer, and stitched objects."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from exporters.parity.bisect import Divergence
from exporters.parity.stitched import StitchedRow


def layer_table(found: Divergence) -> Table:
    """Return the layers around the first that is beyond its share."""
    table = Table(title=f"Layer by layer, onnx on {found.device}", caption=found.summary(), box=SIMPLE_HEAD)
    table.add_column("layer", overflow="fold")
    for heading in ("rel. L2", "allowed", "share", "growth"):
        table.add_column(heading, justify="right", no_wrap=True)
    for layer in found.around():
        cells = (f"{layer.rel_l2:.1e}", f"{layer.allowed_rel_l2:.1e}", f"{layer.share:.3g}", f"{layer.growth:.3g}")
        table.add_row(layer.layer, *cells, style="red" if layer.share > 1.0 else None)
    return table


def stitched_table(rows: list[StitchedRow]) -> Table:
    """Return how far each runtime's stitched object is from eager float64's."""
    title = f"Objects stitched from {rows[0].patterns} patterns, against eager float64"
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("runtime", no_wrap=True)
    for heading in ("1 − FRC, lowest ring", "1 − SSIM amplitude", "1 − SSIM phase"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for row in rows:
        cells = (f"{found:.1e} of {limit:.1e}" for found, limit in zip(row.deficits, row.allowed, strict=True))
        table.add_row(row.runtime, *cells, "[green]passed[/]" if row.passed else "[red]failed[/]")
    return table
