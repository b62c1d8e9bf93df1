"""Write a reconstruction: Ptychodus product HDF5, NPZ, CXI, TIFF or PNG by suffix; whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from ptycho_runtime.errors import OutputError
from ptycho_runtime.files import replacing
from ptycho_runtime.image.preview import preview_png
from ptycho_runtime.reconstruct import Reconstruction

SUFFIXES = (".h5", ".hdf5", ".npz", ".cxi", ".tif", ".tiff", ".png")
_EV_J = 1.602176634e-19


def check_suffix(path: Path) -> None:
    """Raise `OutputError` for a file name whose suffix names no format, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: what to write is told by the suffix; expected one of {', '.join(SUFFIXES)}")


def write_product(result: Reconstruction, path: Path) -> list[Path]:
    """Write a reconstruction and a PNG of it beside it; returns the files written.

    Raises:
        OutputError: the folder cannot be written, or the suffix names no format.
    """
    check_suffix(path)
    writers: dict[str, Callable[[Reconstruction, IO[bytes]], None]] = {
        ".npz": _npz,
        ".cxi": _cxi,
        ".png": preview_png,
        ".tif": _tiff,
        ".tiff": _tiff,
    }
    written = [path]
    with replacing(path) as file:
        writers.get(path.suffix.lower(), _ptychodus)(result, file)
    if path.suffix.lower() != ".png":
        written.append(path.with_suffix(".png"))
        with replacing(written[-1]) as file:
            preview_png(result, file)
    return written


def _pixel_m(result: Reconstruction) -> float:
    return result.scan.pixel_size_m or 1.0  # 1 px = 1 m where the geometry is not known, as the comments then say


def _comments(result: Reconstruction) -> str:
    lines = [
        f"input_scale_factor {result.input_scale_factor:.9g}; {result.done} of {result.groups} groups on {result.device}"
    ]
    if result.partial:
        lines.append("PARTIAL: stopped before all patterns were in")
    if not result.scan.pixel_size_m:
        lines.append("the object's pixel size is not known: lengths are in pixels")
    lines += [f"skipped, {reason}: {len(frames)}" for reason, frames in result.scan.skipped.items()]
    return "; ".join(lines)


def _centre_m(result: Reconstruction) -> tuple[float, float]:
    """Return the object's centre in scan coordinates; ptychodus puts pixel p at (p − size/2)·pixel + centre."""
    rows, columns = result.object.shape
    pixel = _pixel_m(result)
    return (result.canvas.x0_px + columns / 2) * pixel, (result.canvas.y0_px + rows / 2) * pixel


def _ptychodus(result: Reconstruction, file: IO[bytes]) -> None:
    import h5py

    scan, pixel = result.scan, _pixel_m(result)
    x, y = _centre_m(result)
    with h5py.File(file, "w") as product:
        product.attrs["name"] = scan.name
        product.attrs["comments"] = _comments(result)
        for name in ("detector_object_distance_m", "probe_energy_eV", "exposure_time_s", "probe_photon_count"):
            product.attrs[name] = scan.attributes.get(name, 0.0)
        product["probe_position_indexes"] = scan.frames
        product["probe_position_x_m"] = scan.positions_px[:, 0] * pixel
        product["probe_position_y_m"] = scan.positions_px[:, 1] * pixel
        probe = np.zeros((1, 1, 1, 1), np.complex64) if scan.probe is None else scan.probe[None]
        product["probe"] = probe
        product["object"] = result.object[None]
        for name in ("probe", "object"):
            product[name].attrs["pixel_width_m"] = product[name].attrs["pixel_height_m"] = pixel
        product["object"].attrs["center_x_m"], product["object"].attrs["center_y_m"] = x, y
        product["object_layer_spacing_m"] = np.zeros(0)
        product["loss_values"] = np.zeros(0)
        product["object_coverage"] = result.canvas.coverage
        product.attrs["partial"] = result.partial
        if result.quality is not None:
            product["pattern_residual"] = result.quality.residual
            product["pattern_flagged"] = result.quality.flagged


def _npz(result: Reconstruction, file: IO[bytes]) -> None:
    arrays: dict[str, Any] = {
        "object": result.object,
        "coverage": result.canvas.coverage,
        "x0_px": result.canvas.x0_px,
        "y0_px": result.canvas.y0_px,
        "positions_px": result.scan.positions_px,
        "frames": result.scan.frames,
        "input_scale_factor": result.input_scale_factor,
        "pixel_size_m": result.scan.pixel_size_m,
        "partial": result.partial,
    }
    if result.quality is not None:
        arrays |= {"pattern_residual": result.quality.residual, "pattern_flagged": result.quality.flagged}
    np.savez(file, **arrays)


def _cxi(result: Reconstruction, file: IO[bytes]) -> None:
    import h5py

    pixel = _pixel_m(result)
    with h5py.File(file, "w") as product:
        product["cxi_version"] = 160
        image = product.create_group("entry_1/image_1")
        image["data"] = result.object
        image["data_space"] = "real"
        image["image_size"] = np.array([result.object.shape[1] * pixel, result.object.shape[0] * pixel])
        x, y = _centre_m(result)
        image["image_center"] = np.array([x, y, 0.0])
        image["mask"] = (~result.canvas.covered).astype(np.uint8)
        process = image.create_group("process_1")
        process["command"] = "ptycho-runtime reconstruct"
        process["note"] = _comments(result)
        translation = np.zeros((len(result.scan), 3))
        translation[:, :2] = result.scan.positions_px * pixel
        product["entry_1/data_1/translation"] = translation
        if result.quality is not None:
            image["pattern_residual"] = result.quality.residual


def _tiff(result: Reconstruction, file: IO[bytes]) -> None:
    """Write two float32 pages: amplitude and phase (rad)."""
    from PIL import Image

    pages = [Image.fromarray(part.astype(np.float32)) for part in (np.abs(result.object), np.angle(result.object))]
    pages[0].save(file, format="TIFF", save_all=True, append_images=pages[1:])
