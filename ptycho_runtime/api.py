"""`ptycho_runtime.open`: numpy in, complex64 out."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.closing import Closing
from ptycho_runtime.engine.chosen import Opened, open_graph, tuned_variant
from ptycho_runtime.engine.options import DEFAULTS, RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.tuned import Setting
from ptycho_runtime.engine.variants import OpenedVariant, open_variant
from ptycho_runtime.errors import DeviceUnavailableError, NotExportedError, ReconstructionError, VariantRefusedError
from ptycho_runtime.export.bundle import Export, open_export
from ptycho_runtime.export.domain import with_domain
from ptycho_runtime.files import printable
from ptycho_runtime.image.options import Progress, ReconstructOptions
from ptycho_runtime.image.stitch import holds_crop
from ptycho_runtime.scan.scale import input_scale_factor as scale_of

if TYPE_CHECKING:
    from ptycho_runtime.image.core import Graphs
    from ptycho_runtime.image.result import Reconstruction
    from ptycho_runtime.scan.scan import Scan


class RunFields(TypedDict, total=False):
    """The fields of `RunOptions`, as keywords."""

    device: str
    batch: int | None
    threads: int | None
    tf32: bool
    cuda_graph: bool
    precision: str
    engine: str | None


class Reconstructor(Closing):
    """An exported model, ready to run: a context manager, and `close` does what leaving it does.

    Its methods may be called from several threads at a time.

    Examples:
        >>> import ptycho_runtime
        >>> from ptycho_runtime import demo
        >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model:
        ...     model
        <Reconstructor of model.onnx on cpu: 1 × 64 × 64 px amplitude, float32, batch 16>
    """

    def __init__(self, export: Export, options: RunOptions = DEFAULTS) -> None:
        """Open the `diffraction_to_obj` graph; use `ptycho_runtime.open`.

        Args:
            export: whose graphs are run.
            options: how; where it leaves engine, batch and threads open, what was tuned for each graph on this host's device.

        Raises:
            NotExportedError: the export has no such graph.
            DamagedExportError: onnxruntime refuses the graph.
            DeviceUnavailableError: a device or an engine that was asked for by name cannot be used.
            CheckFailedError: an engine that was asked for by name computes something else than was exported.
        """
        if "diffraction_to_obj" not in export.graphs:
            raise NotExportedError(
                f"{export.path.name}: holds no diffraction_to_obj graph, which object patches come from"
            )
        self.export = export
        patches = open_graph(export, "diffraction_to_obj", options)
        self.patches: Session = patches.session
        self.options = self.patches.options
        """How object patches are made, with the device, engine, batch and threads that they truly have."""
        # Of the other graphs each is tuned by itself; the device is settled.
        self._asked = replace(options, device=self.options.device)
        self._graphs: dict[str, Opened] = {"diffraction_to_obj": patches}
        self._closed = False
        self._variants: dict[str, OpenedVariant | str] = {}  # by graph; in place of one that cannot be used, why

    def __repr__(self) -> str:
        """Return what it is in one line."""
        C, N, _ = self.expected_input_shape
        closed = "closed, " if self._closed else ""
        return (
            f"<Reconstructor of {printable(self.export.path.name)} on {self.patches.device}: {closed}{C} × {N} × {N} px "
            f"{self.export.domain}, {self.precision}, batch {self.batch}>"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the line, and what it was exported from."""
        facts = {"graphs": ", ".join(sorted(self.export.graphs)), "era": self.export.era, "sha256": self.export.sha256}
        lines = "".join(
            f"<tr><th>{name}</th><td>{escape(printable(text, 200))}</td></tr>" for name, text in facts.items()
        )
        return f"<div><p>{escape(repr(self))}</p><table>{lines}</table></div>"

    def close(self) -> None:
        """Close all sessions, with their threads and memory; a second time does nothing.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> model = ptycho_runtime.open(demo.MODEL, "cpu")
            >>> model.close()
        """
        self._closed = True
        for graph in self._graphs.values():
            graph.session.close()
        for variant in self._variants.values():
            if isinstance(variant, OpenedVariant):
                variant.session.close()

    @property
    def batch(self) -> int:
        """Groups a run of object patches."""
        return self.options.groups

    @property
    def tuned(self) -> Setting | None:
        """What was tuned on this host for object patches and is used; None where nothing was, or it was left nothing."""
        return self._graphs["diffraction_to_obj"].tuned

    @property
    def precision(self) -> str:
        """What was asked for: `float32` or `auto`."""
        return self.options.precision

    @property
    def expected_input_shape(self) -> tuple[int, int, int]:
        """(patterns in a group, rows, columns) of one input."""
        return int(self.patches.inputs[contract.DIFFRACTION].shape[1]), self.export.N, self.export.N

    @property
    def autoencoder(self) -> Session | None:
        """The graph that predicts diffraction, opened when first asked for; None where the export has none."""
        return self._graph("autoencoder")

    @property
    def centre(self) -> Session | None:
        """The graph of the patches' central half, opened when first asked for; None where the export has none."""
        return self._graph(contract.CENTRE)

    def _graph(self, name: str) -> Session | None:
        model = self.export.graphs.get(name)
        if name not in self._graphs and model is not None:
            self._refuse_if_closed()
            self._graphs[name] = open_graph(self.export, name, self._asked)
        return self._graphs[name].session if name in self._graphs else None

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ReconstructionError(f"{self.export.path.name} is closed; open it again")

    def variant(self, graph: str = "diffraction_to_obj") -> tuple[OpenedVariant | None, str]:
        """Return (the graph in reduced precision, what is to be said of it); None where float32 runs, and why.

        Reduced precision runs where it was asked for (`precision="auto"`), the export brings a variant, and its budget is kept
        on this host.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> with ptycho_runtime.open(demo.MODEL, "cpu", precision="auto") as model:
            ...     opened, why_not = model.variant()
            >>> opened is None
            True
        """
        if self.precision == "float32":
            return None, ""
        if graph not in self._variants:
            self._refuse_if_closed()
            asked = replace(self._asked, device=self.options.device)
            options, slower = tuned_variant(self.export, graph, asked)
            try:
                self._variants[graph] = slower if options is None else open_variant(self.export, graph, options)
            except (VariantRefusedError, DeviceUnavailableError) as error:
                self._variants[graph] = f"float32 in place of reduced precision: {error}"
        found = self._variants[graph]
        if isinstance(found, str):
            return None, found
        return found, found.variant.label

    def warmup(self) -> None:
        """Run once on numbers, so that the first patterns do not wait.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model:
            ...     model.warmup()
        """
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
            ReconstructionError: another shape, no real numbers, values that are not finite or negative, or factors that are no scale.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> scan = ptycho_runtime.read_scan(demo.SCAN, options=ptycho_runtime.ReadOptions(domain="intensity"))
            >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model, scan:
            ...     patches = model.predict(scan.patterns([0, 1, 2], 64, "amplitude"))
            >>> patches.shape, patches.dtype
            ((3, 64, 64), dtype('complex64'))
        """
        given = np.asarray(diffraction)
        if given.dtype.kind not in "iuf" or not given.size:
            raise ReconstructionError(
                f"diffraction holds {given.dtype} of shape {given.shape}; expected real numbers of one pattern or more"
            )
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
        factors = np.asarray(input_scale_factor, np.float32).reshape(-1)
        if len(factors) not in (1, len(x)) or not (np.isfinite(factors) & (factors > 0)).all():
            raise ReconstructionError(
                f"input_scale_factor is {factors[:3].tolist()} ({len(factors)} numbers); expected one positive number, or one for each of "
                f"{len(x)} groups"
            )
        scale = np.broadcast_to(factors.reshape(-1, 1, 1, 1), (len(x), 1, 1, 1))
        opened, _ = self.variant()
        session: Session = self.patches if opened is None else opened.session
        found = session.run({contract.DIFFRACTION: x, contract.INPUT_SCALE: scale})
        patches: np.ndarray = (found[contract.OBJECT_REAL] + 1j * found[contract.OBJECT_IMAG]).astype(np.complex64)
        return patches.reshape(given.shape) if patches.size == given.size else patches

    def reconstruct(
        self,
        scan: Scan,
        options: ReconstructOptions | None = None,
        progress: Progress | None = None,
    ) -> Reconstruction:
        """Return the object of a scan from `ptycho_runtime.scan.read.read_scan`; see `image.reconstruct.reconstruct`.

        Args:
            scan: patterns and positions.
            options: how; what `ReconstructOptions` says where None.
            progress: called with (groups done, groups in all).

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import demo
            >>> scan = ptycho_runtime.read_scan(demo.SCAN, options=ptycho_runtime.ReadOptions(domain="intensity", every=2))
            >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model, scan:
            ...     result = model.reconstruct(scan)
            >>> result.trust.verdict, result.object.shape
            ('trusted', (140, 140))
        """
        from ptycho_runtime.image.reconstruct import reconstruct

        options = options or ReconstructOptions()
        graphs = self.graphs(options, has_probe=scan.probe is not None)
        return reconstruct(self.export, graphs, scan, options, progress)

    def graphs(self, options: ReconstructOptions, *, has_probe: bool) -> Graphs:
        """Return the sessions that a scan goes through.

        Args:
            options: how the object is made.
            has_probe: the scan has a probe.

        Examples:
            >>> import ptycho_runtime
            >>> from ptycho_runtime import ReconstructOptions, demo
            >>> with ptycho_runtime.open(demo.MODEL, "cpu") as model:
            ...     graphs = model.graphs(ReconstructOptions(), has_probe=True)
            >>> graphs.autoencoder is None, graphs.batch
            (True, 16)
        """
        from ptycho_runtime.image.core import Graphs

        # In reduced precision a pattern is compared with probe × stitched object alone: no whole network is needed for that.
        whole = options.quality and has_probe and self.precision == "float32"
        autoencoder = self.autoencoder if whole else None
        fits = holds_crop(self.export.N // 2, self.export.N, options.crop_px)
        # The factors that a model of counts leaves open are fitted on whole patches.
        open_scales = options.object_scales and self.export.domain == "counts" and has_probe
        middle = self.centre if autoencoder is None and fits and not open_scales else None
        graph = contract.CENTRE if middle is not None else "diffraction_to_obj"
        variant, note = self.variant(graph) if autoencoder is None else (None, "")
        graphs = Graphs(middle or self.patches, autoencoder, variant, note)
        led = graph if autoencoder is None else contract.AUTOENCODER
        tuned = self._graphs[led].tuned is not None
        return replace(graphs, batch=graphs.leading.options.groups, tuned=tuned)


def open(
    path: str | Path,
    options: RunOptions | str | None = None,
    *,
    model_domain: str | None = None,
    sha256: str | None = None,
    **fields: Unpack[RunFields],
) -> Reconstructor:
    """Open an exported bundle or a bare `.onnx` file.

    Args:
        path: `.zip` that ptycho-export wrote, or one of its `.onnx` files.
        options: how graphs are run; a device's name stands for options with that device. Where engine, batch and threads are left
            open, what `ptycho-runtime tune` found for this model and host, else onnxruntime, 16 groups and all threads.
        model_domain: `amplitude` or `counts`, in place of what the export's record says of the patterns that are fed.
        sha256: what the file has to have, 64 hexadecimal digits; any where None.
        fields: of `RunOptions`, in place of those in `options`: `device`, `batch`, `threads`, `tf32`, `cuda_graph`, `precision`,
            `engine`.

    Raises:
        FileNotFoundError: nothing is there.
        ReconstructionError: the file is not what an export is, or an option has a value that it cannot have.
        DeviceUnavailableError: the device or the engine was asked for by name and cannot be used, or there is no CUDA for a CUDA
            graph.
        CheckFailedError: the engine was asked for by name and computes something else than was exported.

    Examples:
        >>> import ptycho_runtime
        >>> from ptycho_runtime import demo
        >>> with ptycho_runtime.open(demo.MODEL, device="cpu", threads=1) as model:
        ...     model.expected_input_shape
        (1, 64, 64)
    """
    chosen = RunOptions(options) if isinstance(options, str) else options or DEFAULTS
    return Reconstructor(with_domain(open_export(path, sha256), model_domain), replace(chosen, **fields))
