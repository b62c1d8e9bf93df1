"""PNG: the picture for the eye."""

from __future__ import annotations

from typing import IO

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.image.figure import figure
from ptycho_runtime.image.products.values import comments, provenance
from ptycho_runtime.image.result import Reconstruction

SOFTWARE_KEY = "Software"


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write `figure.figure` as PNG."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text(SOFTWARE_KEY, CREATOR)
    text.add_text("Comment", comments(result).encode("ascii", "backslashreplace").decode())
    for name, value in provenance(result).items():
        text.add_text(name, value.encode("ascii", "backslashreplace").decode())
    figure(result).save(file, format="PNG", pnginfo=text)
