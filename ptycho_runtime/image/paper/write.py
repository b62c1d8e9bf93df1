"""Make the figure of a reconstruction and write it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.errors import OutputError, PackageMissingError
from ptycho_runtime.files import replacing
from ptycho_runtime.image.paper.page import page_of
from ptycho_runtime.image.products.values import provenance
from ptycho_runtime.image.result import Reconstruction

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image as Picture

SUFFIXES = (".png", ".svg", ".pdf")
INSTALL = "pip install 'ptycho-export[figure]'"


def has_matplotlib() -> bool:
    """Say whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def figure_of(result: Reconstruction) -> Figure | Picture:
    """Return the figure: matplotlib's, or a plainer picture where that is not installed."""
    page = page_of(result)
    if has_matplotlib():
        from ptycho_runtime.image.paper import by_matplotlib

        return by_matplotlib.draw(page)
    from ptycho_runtime.image.paper import by_pillow

    return by_pillow.draw(page)


def check_figure(path: Path) -> None:
    """Refuse a figure that cannot be written here, before the work.

    Raises:
        OutputError: the suffix names no format.
        PackageMissingError: the format needs matplotlib, which is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: what to draw is told by the suffix; expected one of {', '.join(SUFFIXES)}")
    if path.suffix.lower() != ".png" and not has_matplotlib():
        raise PackageMissingError(f"{path}: needs matplotlib, which is not installed: {INSTALL}; or give a .png")


def write_figure(result: Reconstruction, path: Path) -> Path:
    """Write the figure of a reconstruction, whole or not at all; returns its path.

    Args:
        result: what is shown.
        path: `.png` (200 dots an inch), `.svg` or `.pdf`.

    Raises:
        OutputError: the suffix names no format, or the folder cannot be written.
        PackageMissingError: the format needs matplotlib, which is not installed.
    """
    check_figure(path)
    page, said = page_of(result), provenance(result)
    with replacing(path) as file:
        if has_matplotlib():
            from ptycho_runtime.image.paper import by_matplotlib

            by_matplotlib.save(by_matplotlib.draw(page), file, path.suffix, said)
        else:
            from ptycho_runtime.image.paper import by_pillow

            by_pillow.save(by_pillow.draw(page), file, said)
    return path
