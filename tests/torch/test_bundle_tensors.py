"""PyTorch files: the same values as PyTorch reads, without PyTorch."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_bundles import BUNDLES

from ptycho_torch.bundle.state_dict import check_weights
from ptycho_torch.bundle.tensors import load_tensors
from ptycho_torch.errors import (
    BundleError,
    DamagedBundleError,
    NotABundleError,
    UnsafeContentError,
    WeightMismatchError,
)

torch = pytest.importorskip("torch")


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_of_every_dtype_layout_and_protocol_come_back(protocol: int) -> None:
    value = {
        str(dtype): torch.arange(6, dtype=torch.int64).to(dtype).reshape(2, 3)
        for dtype in (
            torch.float16, torch.float32, torch.float64, torch.complex64, torch.complex128,
            torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
        )
    }  # fmt: skip
    value |= {
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "channels last": torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
        "part": torch.arange(9.0)[3:6],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    found = load_tensors(saved(value, pickle_protocol=protocol), "t")
    assert list(found) == list(value)
    for name, expected in value.items():
        assert found[name].shape == tuple(expected.shape), name
        assert np.array_equal(found[name], expected.detach().numpy()), name
        assert not found[name].flags.writeable or not found[name].size, name


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*.ckpt")), ids=lambda path: path.name)
def test_a_checkpoint_is_read_as_pytorch_reads_it(path: Path) -> None:
    with path.open("rb") as file:
        found = load_tensors(file, path.name)
    expected = torch.load(path, weights_only=True, map_location="cpu")
    assert list(found) == list(expected)
    assert list(found["state_dict"]) == list(expected["state_dict"])
    for key, tensor in expected["state_dict"].items():
        assert np.array_equal(found["state_dict"][key], tensor.numpy()), key


def test_a_trained_modules_checkpoint_with_optimiser_is_read() -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    optimiser = torch.optim.AdamW(module.parameters())
    module(torch.ones(2, 1, 5, 5)).sum().backward()
    optimiser.step()
    values = {"dtype": torch.float32, "device": torch.device("cuda:0"), "size": torch.Size([1, 2]), "path": Path("/x")}
    whole = {
        "state_dict": module.state_dict(),
        "optimizer_states": [optimiser.state_dict()],
        "hyper_parameters": values,
    }
    found = load_tensors(saved(whole), "t")
    assert found["hyper_parameters"] == {
        "dtype": "torch.float32", "device": "cuda:0", "size": (1, 2), "path": Path("/x"),
    }  # fmt: skip
    assert found["optimizer_states"][0]["state"][0]["step"] == 1.0
    assert found["state_dict"]["1.num_batches_tracked"] == 1
    assert "optimizer_states" not in load_tensors(saved(whole), "t", want=lambda key: key != "optimizer_states")


def test_tensors_of_one_storage_share_memory_here_too() -> None:
    tensor = torch.arange(4.0)
    found = load_tensors(saved({"a": tensor, "b": tensor, "c": tensor.reshape(2, 2)}), "t")
    assert np.shares_memory(found["a"], found["b"])
    assert np.shares_memory(found["a"], found["c"])


def test_values_lie_in_the_files_own_bytes() -> None:
    data = saved({"a": torch.arange(1000.0)})
    tracemalloc.start()
    try:
        found = load_tensors(data, "t")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    assert 0 < found["a"].__array_interface__["data"][0] - start < len(data)
    assert peak_bytes < 100_000


def test_tensors_that_are_left_out_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"small": torch.ones(10), "large": torch.ones(4_000_000)}, path)
    tracemalloc.start()
    try:
        with path.open("rb") as file:
            found = load_tensors(file, "t", want=lambda key: key != "large")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(found) == ["small"]
    assert peak_bytes < 1_000_000


def test_partly_overlapping_tensors_are_refused_and_separate_parts_are_not() -> None:
    whole = torch.arange(6.0)
    assert len(load_tensors(saved({"a": whole[:3], "b": whole[3:]}), "t")) == 2
    with pytest.raises(UnsafeContentError, match="two tensors that overlap in part of one storage"):
        load_tensors(saved({"a": whole[:4], "b": whole[3:]}), "t")
    with pytest.raises(DamagedBundleError, match="needs more than the 1 values"):
        load_tensors(saved({"a": torch.ones(1).expand(4)}), "t")


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (torch.eye(3).to_sparse(), r"torch\._utils\._rebuild_sparse_tensor"),
        (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_what_is_no_dense_tensor_is_refused_by_name(value: Any, named: str) -> None:
    with pytest.raises(UnsafeContentError, match=f"^t: holds the global {named}; refused, nothing in it was run$"):
        load_tensors(saved({"x": value}), "t")


def test_the_format_from_before_1_6_is_told() -> None:
    data = saved({"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(NotABundleError, match="t: saved in PyTorch's format from before"):
        load_tensors(data, "t")


def test_a_file_cut_anywhere_is_damaged() -> None:
    data = saved({"a": torch.ones(20)})
    for size in (0, 1, 10, 100, len(data) // 2, len(data) - 1):
        with pytest.raises(DamagedBundleError):
            load_tensors(data[:size], "t")


def test_weights_are_finite_dense_numbers_under_text_keys() -> None:
    good = {"a": np.ones(3, "f4"), "n": np.array(1)}
    assert check_weights(good, "t") is good
    for bad, message in [
        ({**good, "b": np.array([1.0, np.nan])}, "t: b holds values that are not finite"),
        ({**good, "b": np.array([1.0 + 1j * np.inf])}, "t: b holds values that are not finite"),
        ({**good, "b": np.ones(2, "?")}, "t: b has dtype bool; expected floating-point weights"),
        ({**good, "b": [1.0]}, "t: entry 'b' is list; expected a dense tensor"),
        ({**good, 1: np.ones(2)}, "t: entry 1 is ndarray; expected a dense tensor"),
    ]:
        with pytest.raises(WeightMismatchError, match=message):
            check_weights(bad, "t")
    for empty in ({}, None, []):
        with pytest.raises(DamagedBundleError, match="t: holds no state_dict"):
            check_weights(empty, "t")


def test_a_value_that_is_not_finite_is_found_in_any_place() -> None:
    large = np.zeros((3, 1 << 20), "f4")
    large[2, -1] = np.inf
    for values in (large, np.asfortranarray(large)):
        with pytest.raises(BundleError, match="not finite"):
            check_weights({"a": values}, "t")
