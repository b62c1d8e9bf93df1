"""A golden reference that would let anything pass is refused, and so is an NPZ that claims what is not there."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.export.golden import check_golden
from ptycho_runtime.export.npz import read_npz
from ptycho_runtime.export.onnx_file import GraphFile

MODEL = GraphFile(
    inputs=[{"name": "diffraction", "shape": ["batch", 1, 4, 4], "dtype": "float32"}],
    outputs=[{"name": "object_real", "shape": ["batch", 1, 4, 4], "dtype": "float32"}],
)


def sound() -> dict[str, np.ndarray]:
    return {
        "g.input.diffraction": np.ones((3, 1, 4, 4), np.float32),
        "g.reference.object_real": np.full((3, 1, 4, 4), 2.0),
        "g.allowed.object_real": np.array([1e-5, 1e-6]),
    }


def npz(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_sound_reference_is_taken() -> None:
    check_golden(read_npz(npz(sound()), "golden.npz"), {"g": MODEL}, "golden.npz")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("g.allowed.object_real", np.array([np.nan, 1.0]), "finite and not negative"),
        ("g.allowed.object_real", np.array([np.inf, np.inf]), "finite and not negative"),
        ("g.allowed.object_real", np.array([-1e-5, 1e-6]), "finite and not negative"),
        ("g.allowed.object_real", np.array(1e-5), "finite and not negative"),
        ("g.allowed.object_real", np.array([1e-5, 1e-6], np.float32), "finite and not negative"),
        ("g.allowed.object_real", np.array([0.5, 1e-6]), "anything would pass"),
        ("g.allowed.object_real", np.array([1e-5, 0.9]), "anything would pass"),
        ("g.allowed.object_real", None, "lacks g.allowed.object_real"),
        ("g.reference.object_real", np.full((3, 1, 4, 4), np.nan), "finite float64"),
        ("g.reference.object_real", np.ones((3, 1, 4, 4), np.float32), "finite float64"),
        ("g.input.diffraction", np.float32(1), "expected finite float32"),
        ("g.input.diffraction", np.ones((3, 1, 8, 4), np.float32), "expected finite float32"),
        ("g.input.diffraction", np.full((3, 1, 4, 4), np.inf, np.float32), "expected finite float32"),
        ("g.input.diffraction", np.ones((0, 1, 4, 4), np.float32), "is of 0 groups"),
    ],
)
def test_what_proves_nothing_is_refused(name: str, value: np.ndarray | None, why: str) -> None:
    arrays = sound() | ({} if value is None else {name: value})
    if value is None:
        del arrays[name]
    with pytest.raises(DamagedExportError, match=why):
        check_golden(arrays, {"g": MODEL}, "golden.npz")


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def member(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: member(header((1 << 45,))), "claims 140737488355328 bytes"),
        (lambda: member(header((2,)) + bytes(9)), "claims 8 bytes of numbers, and has 9"),
        (lambda: member(header((1,), "|O") + bytes(8)), "expected numbers"),
        (lambda: member(header((1,), "<U4") + bytes(16)), "expected numbers"),
        (lambda: member(header((1,) * 9) + bytes(4)), "expected numbers"),
        (lambda: member(b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 15 + b"\n"), "cannot be read"),
        (lambda: member(b"nothing"), "cannot be read"),
        (lambda: b"PK\x03\x04" + bytes(40), "cannot be read"),
        (lambda: b"", "cannot be read"),
    ],
)
def test_an_npz_that_claims_what_is_not_there(make: Callable[[], bytes], why: str) -> None:
    with pytest.raises(DamagedExportError, match=why):
        read_npz(make(), "golden.npz")


def test_a_bomb_is_seen_before_it_is_unpacked() -> None:
    with pytest.raises(DamagedExportError, match="bytes unpacked; expected at most 1000000"):
        read_npz(member(header((10_000_000,)) + bytes(40_000_000)), "golden.npz", 1_000_000)
