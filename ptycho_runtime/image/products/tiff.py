"""TIFF: amplitude and phase as two pages that any viewer opens."""

from __future__ import annotations

from typing import IO

import numpy as np

from ptycho_runtime.image.products.values import CREATOR, comments
from ptycho_runtime.image.result import Reconstruction

SOFTWARE_TAG = 305
_DESCRIPTION_TAG = 270


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write two float32 pages: amplitude and phase (rad)."""
    from PIL import Image

    pages = [Image.fromarray(part.astype(np.float32)) for part in (np.abs(result.object), np.angle(result.object))]
    tags = {SOFTWARE_TAG: CREATOR, _DESCRIPTION_TAG: comments(result).encode("ascii", "backslashreplace").decode()}
    pages[0].save(file, format="TIFF", save_all=True, append_images=pages[1:], tiffinfo=tags)
