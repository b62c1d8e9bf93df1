"""`ptycho_runtime.open`: numpy in, complex64 out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ptycho_runtime import contract as c
from ptycho_runtime.bundle import Export, open_export
from ptycho_runtime.errors import NotExportedError, ReconstructionError
from ptycho_runtime.scale import input_scale_factor as scale_of
from ptycho_runtime.session import GraphSession
from ptycho_runtime.tune import remembered

if TYPE_CHECKING:
    from ptycho_runtime.reconstruct import Reconstruction
    from ptycho_runtime.scans import Scan

DEFAULT_BATCH = 16  # where nothing was tuned


class Reconstructor:
    """An exported model, ready to run. Its methods may be called from several threads at a time."""

    def __init__(
        self,
        export: Export,
        device: str = "auto",
        batch: int | None = None,
        *,
        tf32: bool = False,
        threads: int | None = None,
        cuda_graph: bool = False,
    ) -> None:
        """Open the `diffraction_to_obj` graph; use `ptycho_runtime.open`.

        Raises:
            NotExportedError: the export has no such graph.
            DeviceUnavailableError: the device cannot be used.
        """
        if "diffraction_to_obj" not in export.graphs:
            raise NotExportedError(
                f"{export.path.name}: holds no diffraction_to_obj graph, which object patches come from"
            )
        self.export = export
        model = export.graphs["diffraction_to_obj"]
        self.patches = GraphSession(
            model, device, batch or DEFAULT_BATCH, tf32=tf32, threads=threads, cuda_graph=cuda_graph
        )
        self.tuned = remembered(export, self.patches.device) if batch is None and threads is None else None
        if self.tuned is not None:
            # Opened a second time, for the device that a setting belongs to is only known once a session is there.
            batch, threads = self.tuned.batch, self.tuned.threads
            self.patches = GraphSession(
                model, self.patches.device, batch, tf32=tf32, threads=threads, cuda_graph=cuda_graph
            )
        self.batch = batch or DEFAULT_BATCH
        self._tf32, self._threads, self._cuda_graph = tf32, threads, cuda_graph
        self._autoencoder: GraphSession | None = None

    @property
    def expected_input_shape(self) -> tuple[int, int, int]:
        """(patterns in a group, rows, columns) of one input."""
        return int(self.patches.inputs[c.DIFFRACTION].shape[1]), self.export.N, self.export.N

    @property
    def autoencoder(self) -> GraphSession | None:
        """The graph that predicts diffraction, opened when first asked for; None where the export has none."""
        model = self.export.graphs.get("autoencoder")
        if self._autoencoder is None and model is not None:
            self._autoencoder = GraphSession(
                model,
                self.patches.device,
                self.batch,
                tf32=self._tf32,
                threads=self._threads,
                cuda_graph=self._cuda_graph,
            )
        return self._autoencoder

    def warmup(self) -> None:
        """Run once on zeros, so that the first patterns do not wait."""
        self.patches.warmup()

    def predict(self, diffraction: np.ndarray, input_scale_factor: float | np.ndarray | None = None) -> np.ndarray:
        """Return object patches.

        Args:
            diffraction: (batch, C, N, N), or (batch, N, N) or (N, N) for C = 1; amplitudes (counts where `export.domain` says so),
                zero frequency at pixel [N//2, N//2].
            input_scale_factor: one for all, or one per group; the frozen value of the export, else computed from these patterns
                as from a scan.

        Returns:
            complex64 of the same shape as `diffraction`.

        Raises:
            ReconstructionError: another shape, or values that are not finite or negative.
        """
        given = np.asarray(diffraction)
        C, N, _ = self.expected_input_shape
        shape = (-1, C, N, N)
        if (
            given.shape[-2:] != (N, N)
            or (given.ndim == 4 and given.shape[1] != C)
            or (given.ndim < 4 and C > 1)
            or not 2 <= given.ndim <= 4
        ):
            raise ReconstructionError(f"diffraction has shape {given.shape}; the model takes (batch, {C}, {N}, {N})")
        x = np.ascontiguousarray(given.reshape(shape), np.float32)
        if not np.isfinite(x).all() or (x < 0).any():
            raise ReconstructionError("diffraction holds negative or non-finite values; expected amplitudes")
        if input_scale_factor is None:
            frames = x.reshape(-1, N, N)
            input_scale_factor = self.export.scale_value or scale_of(self.export.scale_formula, [frames], N)
        scale = np.broadcast_to(np.asarray(input_scale_factor, np.float32).reshape(-1, 1, 1, 1), (len(x), 1, 1, 1))
        found = self.patches.run({c.DIFFRACTION: x, c.INPUT_SCALE: scale})
        patches: np.ndarray = (found[c.OBJECT_REAL] + 1j * found[c.OBJECT_IMAG]).astype(np.complex64)
        return patches.reshape(given.shape) if patches.size == given.size else patches

    def reconstruct(
        self,
        scan: Scan,
        *,
        quality: bool = True,
        crop_px: int | None = None,
        weighting: str = "auto",
        progress: Callable[[int, int], None] | None = None,
    ) -> Reconstruction:
        """Return the object of a scan from `ptycho_runtime.scans.read_scan`; see `reconstruct.reconstruct`.

        Args:
            scan: patterns and positions.
            quality: give each pattern a residual too, where the export and the scan allow it.
            crop_px: side of a patch's middle that is used.
            weighting: `auto`, `probe` or `window`.
            progress: called with (groups done, groups in all).
        """
        from ptycho_runtime.reconstruct import reconstruct

        return reconstruct(
            self.export,
            self.patches,
            scan,
            autoencoder=self.autoencoder if quality and scan.probe is not None else None,
            batch=self.batch,
            crop_px=crop_px,
            weighting=weighting,
            progress=progress,
        )


def open(
    path: str | Path,
    device: str = "auto",
    batch: int | None = None,
    *,
    tf32: bool = False,
    threads: int | None = None,
    cuda_graph: bool = False,
) -> Reconstructor:
    """Open an exported bundle or a bare `.onnx` file.

    Args:
        path: `.zip` that ptycho-export wrote, or one of its `.onnx` files.
        device: `auto`, `cpu`, `cuda` or `tensorrt`; `auto` takes CUDA where it truly works and notes why where not.
        batch: groups a run; where it and `threads` are None, what `ptycho-runtime tune` found for this model and host, else 16.
        tf32: let a GPU round the factors of products to 10 bits.
        threads: for the CPU; what this process may use where None.
        cuda_graph: run each batch as one CUDA graph, captured in the first run; for CUDA alone.

    Raises:
        FileNotFoundError: nothing is there.
        ReconstructionError: the file is not what an export is.
        DeviceUnavailableError: the device was asked for by name and cannot be used, or there is no CUDA for a CUDA graph.
    """
    return Reconstructor(open_export(path), device, batch, tf32=tf32, threads=threads, cuda_graph=cuda_graph)
