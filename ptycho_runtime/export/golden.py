"""`golden.npz`: inputs, the reference and what a host may err, checked before any of them is believed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.export.onnx_file import GraphFile

MAX_ALLOWED = (
    0.1  # of the largest magnitude, and of the norm: more than any rounding, and less than what is seen in an image
)
SMALL = 1e-3  # an absolute error that outputs near zero may have
MAX_GROUPS = 4096


def check_golden(arrays: Mapping[str, np.ndarray], graphs: Mapping[str, GraphFile], label: str) -> None:
    """Refuse a golden reference that would let anything pass, or that the graphs cannot be held against.

    Args:
        arrays: by name, see `contract.GOLDEN_KINDS`.
        graphs: what the graphs' ONNX files say of themselves, by graph.
        label: the file's name, for messages.

    Raises:
        DamagedExportError: an array is absent, of another shape or kind, not finite; an allowed error is none, or too large.
    """
    for graph, model in graphs.items():
        groups: int | None = None
        for tensor in model.inputs:
            name = f"{graph}.input.{tensor['name']}"
            array = _present(arrays, name, label)
            fits = len(tensor["shape"]) == array.ndim and all(
                isinstance(side, str) or side == length
                for side, length in zip(tensor["shape"], array.shape, strict=True)
            )
            if array.dtype.name != tensor["dtype"] or not fits or not np.isfinite(array).all():
                raise DamagedExportError(
                    f"{label}: {name} is {array.dtype} {array.shape}; expected finite {tensor['dtype']} {tensor['shape']}; "
                    "export the bundle again"
                )
            if tensor["shape"][:1] == [contract.BATCH_AXIS]:
                groups = len(array) if groups is None else groups
                if not 1 <= len(array) <= MAX_GROUPS or len(array) != groups:
                    raise DamagedExportError(
                        f"{label}: {name} is of {len(array)} groups; expected {groups}, at most {MAX_GROUPS}; export the bundle again"
                    )
        for tensor in model.outputs:
            reference = _present(arrays, f"{graph}.reference.{tensor['name']}", label)
            if reference.dtype != np.float64 or not reference.size or not np.isfinite(reference).all():
                raise DamagedExportError(
                    f"{label}: {graph}.reference.{tensor['name']} is {reference.dtype} {reference.shape}; expected finite float64 "
                    "numbers; export the bundle again"
                )
            _check_allowed(arrays, graph, tensor["name"], float(np.abs(reference).max()), label)


def _check_allowed(arrays: Mapping[str, np.ndarray], graph: str, output: str, largest: float, label: str) -> None:
    name = f"{graph}.allowed.{output}"
    allowed = _present(arrays, name, label)
    if allowed.dtype != np.float64 or allowed.shape != (2,) or not np.isfinite(allowed).all() or (allowed < 0.0).any():
        raise DamagedExportError(
            f"{label}: {name} is {allowed.dtype} {allowed.shape} {allowed.tolist() if allowed.size < 4 else ''}; expected the largest "
            "allowed error and relative error, finite and not negative; export the bundle again"
        )
    max_abs, rel_l2 = (float(value) for value in allowed)
    if max_abs > max(MAX_ALLOWED * largest, SMALL) or rel_l2 > MAX_ALLOWED:
        raise DamagedExportError(
            f"{label}: {name} allows errors of {max_abs:.1e} and {rel_l2:.1e} (relative), where the reference reaches {largest:.1e}: "
            "anything would pass; export the bundle again"
        )


def _present(arrays: Mapping[str, np.ndarray], name: str, label: str) -> np.ndarray:
    if name not in arrays:
        raise DamagedExportError(f"{label} lacks {name}; export the bundle again")
    return arrays[name]
