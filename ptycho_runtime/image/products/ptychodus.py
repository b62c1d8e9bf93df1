"""Ptychodus product HDF5: what Ptychodus opens, with more beside it that it leaves alone."""

from __future__ import annotations

import io
from typing import IO

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.files import encodable
from ptycho_runtime.image.products.nexus import add_nexus
from ptycho_runtime.image.products.values import (
    centre_m,
    centre_px,
    comments,
    facts,
    pattern_arrays,
    pixel_arrays,
    pixel_m,
    positions_m,
    skipped_frames,
)
from ptycho_runtime.image.result import Reconstruction

# Energy has two names: that of Ptychodus up to 1.6 and that since. Readers of either find it.
_ENERGY_NAMES = ("probe_energy_eV", "photon_energy_eV")
_CENTRE_CONVENTION = "column = (x - center_x_m) / pixel_width_m + columns / 2, rows likewise"


def write(result: Reconstruction, file: IO[bytes]) -> None:
    """Write a reconstruction.

    It is put together in memory first: HDF5 that cannot write to its file leaves it, and sometimes the process, in pieces.
    """
    import h5py

    scan, known = result.scan, result.scan.attributes
    width, height = pixel_m(result) or (np.nan, np.nan)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as product:
        product.attrs["creator"] = CREATOR
        product.attrs["name"] = encodable(scan.name)
        product.attrs["comments"] = comments(result)
        for name in ("detector_object_distance_m", "exposure_time_s", "probe_photon_count"):
            product.attrs[name] = known.get(name, 0.0)
        energy = next((known[name] for name in _ENERGY_NAMES if known.get(name)), 0.0)
        for name in _ENERGY_NAMES:
            product.attrs[name] = energy
        for name, fact in facts(result).items():
            product.attrs[name] = fact
        product["probe_position_indexes"] = scan.frames
        for k, axis in enumerate("xy"):
            product[f"probe_position_{axis}_m"] = positions_m(result)[:, k]
            product[f"probe_position_{axis}_px"] = scan.positions_px[:, k]
        product["probe"] = np.zeros((1, 1, 1, 1), np.complex64) if scan.probe is None else scan.probe[None]
        product["object"] = result.object[None]
        for name in ("probe", "object"):
            product[name].attrs["pixel_width_m"], product[name].attrs["pixel_height_m"] = width, height
        for unit, centre in (("m", centre_m(result)), ("px", centre_px(result))):
            product["object"].attrs[f"center_x_{unit}"], product["object"].attrs[f"center_y_{unit}"] = centre
        product["object"].attrs["center_convention"] = _CENTRE_CONVENTION
        product["object_layer_spacing_m"] = np.zeros(0)
        product["loss_values"] = np.zeros(0)
        product["skipped_frames"] = skipped_frames(result)
        product["object_coverage"] = result.canvas.coverage
        for name, values in (pattern_arrays(result) | pixel_arrays(result)).items():
            product[name] = values
        add_nexus(product, "entry", result, product)
    file.write(memory.getvalue())
