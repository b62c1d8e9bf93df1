"""CXI as Ptychodus has it: the probe as `image_1`, the object as `image_2`, positions as `data_1/translation`."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.files import encodable
from ptycho_runtime.image.products.nexus import add_nexus
from ptycho_runtime.image.products.values import (
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
from ptycho_runtime.scan.layouts.units import EV_J

if TYPE_CHECKING:
    import h5py


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write a reconstruction, put together in memory as a Ptychodus product is."""
    import h5py

    rows, columns = result.object.shape
    width, height = pixel_m(result) or (np.nan, np.nan)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as product:
        product.attrs["creator"] = CREATOR
        product["cxi_version"] = 160
        product["entry_1/title"] = encodable(result.scan.name)
        product["entry_1/experiment_description"] = comments(result)
        image = product.create_group("entry_1/image_2")
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
        image["positions_px"] = result.scan.positions_px
        for name, values in (pattern_arrays(result) | pixel_arrays(result)).items():
            image[name] = values
        add_probe(product, result)
        add_extras(product, result)
        add_nexus(product, "entry_1", result, image)
    file.write(memory.getvalue())


def add_probe(product: h5py.File, result: Reconstruction) -> None:
    """Write the probe and the beam; zeros where the scan has none, since Ptychodus opens no file without."""
    scan, known = result.scan, result.scan.attributes
    probe = product.create_group("entry_1/image_1")
    probe["data"] = np.zeros((1, 1, 1), np.complex64) if scan.probe is None else scan.probe
    probe["data_space"] = "real"
    energy_ev = known.get("probe_energy_eV") or known.get("photon_energy_eV") or 0.0
    product["entry_1/instrument_1/source_1/energy"] = energy_ev * EV_J
    product["entry_1/instrument_1/detector_1/distance"] = known.get("detector_object_distance_m", 0.0)


def add_extras(product: h5py.File, result: Reconstruction) -> None:
    """Write what CXI has no place for where Ptychodus keeps it."""
    extras = product.create_group("entry_1/ptychodus")
    extras["probe_position_indexes"] = result.scan.frames
    width, height = pixel_m(result) or (np.nan, np.nan)
    for name in ("probe", "object"):
        extras[f"{name}_pixel_width_m"], extras[f"{name}_pixel_height_m"] = width, height
    extras["object_center_x_m"], extras["object_center_y_m"] = centre_m(result)
