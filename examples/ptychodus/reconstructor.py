"""A reconstructor of Ptychodus around an exported PtychoPINN model, without PyTorch and TensorFlow.

`ExportedReconstructor` is one of Ptychodus's own kind (`ptychodus.api.reconstruct`, release 1.7). As a program it reads what
Ptychodus wrote and writes a product that Ptychodus opens:

    python reconstructor.py wts.h5.zip diffraction.h5 product.h5 -o reconstructed.h5
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
from ptychodus.api.geometry import PixelGeometry
from ptychodus.api.io import load_diffraction_data, load_product, save_product
from ptychodus.api.object import Object, ObjectCenter
from ptychodus.api.product import Product
from ptychodus.api.reconstruct import (
    ReconstructInput,
    ReconstructorLibrary,
    ReconstructOutput,
    TrainableReconstructor,
    TrainOutput,
    prepare_reconstruct_input,
)

import ptycho_runtime
from ptycho_runtime.errors import OutputError, ReconstructionError
from ptycho_runtime.image.products.values import comments
from ptycho_runtime.image.result import Reconstruction
from ptycho_runtime.scan.detector import Detector
from ptycho_runtime.scan.options import Fit
from ptycho_runtime.scan.probe import on_grid

_PASSES = 1  # a network sees each pattern once


class ExportedReconstructor(TrainableReconstructor):
    """An exported model as Ptychodus calls it. It has a file, as models that are trained there have, and cannot be trained."""

    def __init__(self, device: str = "auto", fit: Fit | None = None) -> None:
        """Start without a model.

        Args:
            device: as `ptycho_runtime.open` takes it.
            fit: `crop`, `pad` or `bin`, where patterns have another size than the model's; refused where None.
        """
        self.device, self.fit = device, fit
        self.model: ptycho_runtime.Reconstructor | None = None
        self.result: Reconstruction | None = None
        """Of the last scan: its verdict, flags and uncertainty."""

    @property
    def name(self) -> str:
        """Return the name that Ptychodus shows."""
        return "PtychoPINN (exported)"

    def get_progress_goal(self) -> int:
        """Return how many passes there are."""
        return _PASSES

    def is_model_loaded(self) -> bool:
        """Say whether a model is open."""
        return self.model is not None

    def get_model_file_filter(self) -> str:
        """Return what the file dialog shows."""
        return "Exported PtychoPINN models (*.zip *.onnx)"

    def get_model_file_extension(self) -> str:
        """Return the suffix of an exported bundle."""
        return ".zip"

    def load_model_from_file(self, file_path: Path) -> None:
        """Open an exported bundle or `.onnx` file; raises as `ptycho_runtime.open` does, and the model before stays open."""
        opened = ptycho_runtime.open(file_path, self.device)
        if self.model is not None:
            self.model.close()
        self.model = opened

    def reconstruct(self, parameters: ReconstructInput) -> Iterator[ReconstructOutput]:
        """Yield the product with the object in place of the one that came, once.

        Raises:
            ReconstructionError: no model is open; the product is of the near field, which no such model was trained for.
            ScanError: patterns or positions are not what a scan is.
        """
        if self.model is None:
            raise ReconstructionError("no model is open; call load_model_from_file first")
        product = parameters.product
        if not product.metadata.far_field:
            raise ReconstructionError("the product is of the near field; these models were trained for the far field")
        with scan_of(parameters, self.model.export.N, self.fit) as scan:
            self.result = self.model.reconstruct(scan)
        yield ReconstructOutput(product_of(self.result, product), progress=_PASSES)

    def save_model(self, file_path: Path) -> NoReturn:
        """Refuse: the file that was opened is the model."""
        raise OutputError(f"{file_path}: an exported model does not change here; copy the file that was opened")

    def get_training_data_file_filter(self) -> str:
        """Return what the file dialog shows: there are no such files."""
        return ""

    def export_training_data(self, file_path: Path, parameters: ReconstructInput) -> NoReturn:
        """Refuse: training is PtychoPINN's."""
        raise OutputError(f"{file_path}: an exported model is not trained; train with PtychoPINN and export again")

    def train(self, input_path: Path, output_path: Path) -> Iterator[TrainOutput]:
        """Refuse: training is PtychoPINN's."""
        raise ReconstructionError("an exported model is not trained; train with PtychoPINN and export again")


class ExportedLibrary(ReconstructorLibrary):
    """The reconstructor as a library of one, which Ptychodus lists."""

    def __init__(self, reconstructors: Sequence[ExportedReconstructor] = ()) -> None:
        """Take the reconstructors; one of the default device where none is given."""
        super().__init__("ptycho_runtime")
        self._reconstructors = tuple(reconstructors) or (ExportedReconstructor(),)

    @property
    def name(self) -> str:
        """Return the name that Ptychodus shows."""
        return "PtychoPINN-export"

    def __iter__(self) -> Iterator[ExportedReconstructor]:
        """Iterate over the reconstructors."""
        return iter(self._reconstructors)


def scan_of(parameters: ReconstructInput, N: int, fit: Fit | None = None) -> ptycho_runtime.Scan:
    """Return what Ptychodus hands over as a scan, checked as one from a file is.

    Patterns are intensities with the zero frequency in the middle, positions metres of the beam, bad pixels are masked. The
    object's pixels are those of the probe; where `fit` brings patterns to N pixels, both follow.
    """
    product, patterns = parameters.product, parameters.diffraction_patterns
    pixel = product.probes.get_pixel_geometry()
    positions = product.probe_positions
    places_m = np.stack([positions.get_coordinates_x_m(), positions.get_coordinates_y_m()], axis=-1)
    shape = patterns.shape[1], patterns.shape[2]
    bad = np.asarray(parameters.bad_pixels, bool)
    detector = Detector(shape, fit, None, bad if bad.any() else None)
    # Cropping or padding makes the object's pixel larger or smaller, binning does not.
    height_m, width_m = (
        size_m * side / (N * detector.binning(N))
        for size_m, side in zip((pixel.height_m, pixel.width_m), shape, strict=True)
    )
    modes = product.probes.get_probe_no_opr().get_array()
    return ptycho_runtime.Scan(
        name=product.metadata.name or "ptychodus",
        read=lambda rows: patterns[rows],
        frames=positions.get_indexes(),
        rows=np.arange(len(patterns)),
        positions_px=places_m / [width_m, height_m],
        size_px=min(shape),
        domain="intensity",
        probe=on_grid(modes, detector, N).astype(np.complex64),
        pixel_size_m=width_m,
        pixel_height_m=height_m,
        fit=fit,
        detector=detector,
    )


def product_of(result: Reconstruction, given: Product) -> Product:
    """Return a product with the object of a reconstruction; positions, probe and metadata are those that were given."""
    scan, (rows, columns) = result.scan, result.object.shape
    centre = ObjectCenter(
        (result.canvas.x0_px + columns / 2) * scan.pixel_size_m,
        (result.canvas.y0_px + rows / 2) * scan.pixel_height_m,
    )
    pixel = PixelGeometry(scan.pixel_size_m, scan.pixel_height_m)
    said = "; ".join(filter(None, (given.metadata.comments, f"ptycho-runtime: {comments(result)}")))
    return replace(
        given,
        metadata=replace(given.metadata, comments=said),
        object_=Object(result.object[None], pixel, centre),
        losses=[],
    )


def main() -> None:
    """Reconstruct one diffraction file with the positions and the probe of a product."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="exported bundle or .onnx file")
    parser.add_argument("diffraction", type=Path, help="diffraction file that Ptychodus wrote")
    parser.add_argument("product", type=Path, help="product with positions and probe")
    parser.add_argument("-o", "--out", type=Path, required=True, help="product that is written")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists; give another name")
    reconstructor = ExportedReconstructor(arguments.device)
    reconstructor.load_model_from_file(arguments.model)
    given = prepare_reconstruct_input(load_diffraction_data(arguments.diffraction), load_product(arguments.product))
    for output in reconstructor.reconstruct(given):
        save_product(arguments.out, output.product)
    if reconstructor.result is not None:
        print(f"{reconstructor.result.trust.verdict}: {arguments.out}")


if __name__ == "__main__":
    main()
