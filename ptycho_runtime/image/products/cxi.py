"""CXI: the object as `image_1`, its positions as `data_1/translation`."""

from __future__ import annotations

import io
from typing import IO

import numpy as np

from ptycho_runtime.image.products.values import (
    CREATOR,
    centre_m,
    comments,
    facts,
    pattern_arrays,
    pixel_arrays,
    pixel_m,
    positions_m,
    skipped_frames,
)
from ptycho_runtime.image.result import Reconstruction


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write a reconstruction, put together in memory as a Ptychodus product is."""
    import h5py

    rows, columns = result.object.shape
    width, height = pixel_m(result) or (np.nan, np.nan)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as product:
        product.attrs["creator"] = CREATOR
        product["cxi_version"] = 160
        image = product.create_group("entry_1/image_1")
        image["data"] = result.object
        image["data_space"] = "real"
        image["image_size"] = np.array([columns * width, rows * height])
        image["image_center"] = np.array([*centre_m(result), 0.0])
        image["mask"] = (~result.canvas.covered).astype(np.uint8)
        process = image.create_group("process_1")
        process["command"] = "ptycho-runtime reconstruct"
        process["note"] = comments(result)
        for name, fact in facts(result).items():
            process.attrs[name] = fact
        translation = np.zeros((len(result.scan), 3))
        translation[:, :2] = positions_m(result)
        product["entry_1/data_1/translation"] = translation
        image["skipped_frames"] = skipped_frames(result)
        image["frames"] = result.scan.frames
        for name, values in (pattern_arrays(result) | pixel_arrays(result)).items():
            image[name] = values
    file.write(memory.getbuffer())
