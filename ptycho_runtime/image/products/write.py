"""Write a reconstruction: the format by the suffix, a picture beside it, each file whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from ptycho_runtime.files import replacing
from ptycho_runtime.image.paper.write import write_figure
from ptycho_runtime.image.products import cxi, npz, png, ptychodus, tiff
from ptycho_runtime.image.products.target import Target
from ptycho_runtime.image.result import Reconstruction

WRITERS: dict[str, Callable[[Reconstruction, IO[bytes]], None]] = {
    ".h5": ptychodus.write,
    ".hdf5": ptychodus.write,
    ".npz": npz.write,
    ".cxi": cxi.write,
    ".tif": tiff.write,
    ".tiff": tiff.write,
    ".png": png.write,
}


def write_product(result: Reconstruction, target: Target) -> list[Path]:
    """Write a reconstruction, a PNG of it beside it, and the figure where there is to be one; returns the files written.

    A partial one never takes the place of what is there: see `Target.for_partial`.

    Args:
        result: what to write.
        target: where to, from `check_target`.

    Raises:
        OutputError: the folder cannot be written; older files are as they were.
    """
    place = target.for_partial() if result.partial else target
    for path in place.paths:
        if path == place.figure:
            write_figure(result, path)
            continue
        with replacing(path) as file:
            WRITERS[path.suffix.lower()](result, file)
    return list(place.paths)
