"""`golden.npz`: a few inputs with float64 references; its graphs hold one network, so on equal inputs they must agree."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from ptycho_runtime import contract

# Relative L2 between float64 results of one network by two ways.
AGREEMENT = 1e-9
_SHARED_INPUTS = (contract.DIFFRACTION, contract.INPUT_SCALE)


def golden_contradiction(arrays: Mapping[str, np.ndarray], graphs: Collection[str], N: int) -> str:
    """Return where the references of the object graphs and of the autoencoder contradict each other; empty where they agree.

    A reference that was forged for some of the graphs only is met without any weights.

    Args:
        arrays: `golden.npz` by array name.
        graphs: those of the export.
        N: side of a pattern, pixels.
    """
    whole = contract.DIFFRACTION_TO_OBJ
    for graph in graphs:
        for name in _SHARED_INPUTS:
            first, other = (arrays.get(f"{which}.input.{name}") for which in (whole, graph))
            if first is None or other is None or not np.array_equal(first, other):
                return f"{graph} and {whole} have other inputs {name}"
    expected = _object(arrays, whole)
    if expected is None:
        return f"{whole} has no object"
    for graph in graphs:
        found = _object(arrays, graph)
        middle = contract.centre(N) if graph == contract.CENTRE else slice(None)
        part = expected[..., middle, middle]
        if (
            found is None
            or not _fit(found.shape, part.shape)
            or np.broadcast_shapes(found.shape, part.shape) != part.shape
        ):
            return f"{graph} has no object of the shape that {whole} has"
        norm = float(np.linalg.norm(part))
        distance = float(np.linalg.norm(found - part))
        if not distance <= AGREEMENT * max(norm, 1e-300):
            return (
                f"the object of {graph} is {distance / max(norm, 1e-300):.1e} away from that of {whole} (relative L2)"
            )
    return ""


def _object(arrays: Mapping[str, np.ndarray], graph: str) -> np.ndarray | None:
    """Return a graph's complex object in float64's precision, or None."""

    def pair(first: str, second: str) -> tuple[np.ndarray, np.ndarray] | None:
        names = [f"{graph}.reference.{name}" for name in (first, second)]
        if not all(name in arrays and arrays[name].dtype.kind == "f" for name in names):
            return None
        a, b = (arrays[name].astype(np.float64) for name in names)
        return (a, b) if a.ndim == b.ndim == 4 and _fit(a.shape, b.shape) else None

    cartesian = pair(contract.OBJECT_REAL, contract.OBJECT_IMAG)
    if cartesian is not None:
        found: np.ndarray = cartesian[0] + 1j * cartesian[1]
        return found
    polar = pair(contract.AMPLITUDE, contract.PHASE)
    return None if polar is None else polar[0] * np.exp(1j * polar[1])


def _fit(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(first, second, strict=True))
