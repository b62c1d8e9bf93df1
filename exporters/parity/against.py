"""PtychoPINN's own numbers, where a user has them, against this project's rebuild of its models.

Everything else in a report is held against the rebuild. A mistake that the rebuild, the graphs and the independent evaluation
share would move all of them alike; numbers that PtychoPINN itself computed would not move with it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from exporters.graph.graphs import graph_io
from exporters.parity.inputs import Pool
from exporters.parity.metrics import budget
from exporters.parity.reference import Outputs, eager_results
from exporters.parity.rounding import rounded_results
from exporters.parity.rows import ParityRow
from exporters.parity.runners import FAILURES, OnnxRunner
from exporters.parity.trials import judge_output
from ptycho_runtime import contract
from ptycho_runtime.errors import DamagedExportError
from ptycho_runtime.export.npz import read_npz
from ptycho_torch.errors import BundleError
from ptycho_torch.models.module import PtychoModel

RUNTIME = "ptychopinn"
RUNTIME_ONNX = "onnx on its inputs"
MAX_BYTES = 2 << 30
PATCHES, AUTO = "diffraction_to_obj", "autoencoder"
# Arrays of the file -> the contract's inputs.
INPUTS = {
    "x": contract.DIFFRACTION,
    "input_scale_factor": contract.INPUT_SCALE,
    "positions": contract.POSITIONS,
    "output_scale_factor": contract.OUTPUT_SCALE,
    "experiment_ids": contract.EXPERIMENT_ID,
}
NEEDED = {
    PATCHES: ("x", "input_scale_factor"),
    AUTO: ("x", "input_scale_factor", "positions", "output_scale_factor", "probe"),
}


def against_rows(
    models: Mapping[str, PtychoModel], artifacts: Mapping[str, Mapping[str, bytes]], path: Path
) -> list[ParityRow]:
    """Return two rows for each graph that the file tells of: PtychoPINN's outputs, and the ONNX file's on the same inputs.

    Args:
        models: eager models by graph, on the CPU.
        artifacts: the exported files by graph and format.
        path: an NPZ with `x`, `input_scale_factor` and `object_patches`, or with `positions`, `probe`, `output_scale_factor`
            (and `experiment_ids`) and `pred_diffraction`, `amp`, `phase`, or with all of them; see docs/parity.md.

    Raises:
        FileNotFoundError: nothing is at `path`.
        BundleError: it is no such file, or its arrays are not of this model.
    """
    arrays = _read(path)
    rows: list[ParityRow] = []
    label = f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"
    for graph in (PATCHES, AUTO):
        theirs = _outputs(arrays, models[graph], graph) if graph in models else {}
        if not theirs:
            continue
        pool = _pool(arrays, models[graph], graph, path)
        reference = eager_results(models, [graph], pool, torch.float64)[graph]
        eager32 = rounded_results(models, pool, {graph: reference})[graph]
        wanted = {name: value for name, value in reference.items() if name in theirs}
        row = ParityRow(graph, RUNTIME, "cpu", "float32", len(pool), label, "passed")
        _judge(row, theirs, wanted, {name: eager32[name] for name in wanted})
        rows.append(row)
        row = ParityRow(graph, RUNTIME_ONNX, "cpu", "float32", len(pool), label, "passed")
        try:
            with OnnxRunner(artifacts[graph]["onnx"], whole=True) as runner:
                _judge(row, runner.run(pool.feed), reference, eager32)
        except FAILURES as error:
            row.verdict, row.reason = (
                "failed",
                f"it raised {type(error).__name__}: {' '.join(str(error).split())[:200]}",
            )
        rows.append(row)
    if not rows:
        raise BundleError(
            f"{path}: holds no outputs of this bundle's models (it has {', '.join(sorted(arrays)) or 'nothing'}); "
            "expected object_patches, or pred_diffraction, amp and phase"
        )
    return rows


def _judge(row: ParityRow, found: Mapping[str, np.ndarray], reference: Outputs, eager32: Outputs) -> None:
    for name, wanted in reference.items():
        value = found[name]
        if value.shape != wanted.shape or not np.isfinite(value).all():
            row.verdict = "failed"
            row.reason = f"{name} is of shape {value.shape}, or not finite; expected {wanted.shape}"
            return
        if not judge_output(row, name, value, reference, budget(name, eager32, reference)):
            return


def _outputs(arrays: Mapping[str, np.ndarray], model: PtychoModel, graph: str) -> dict[str, np.ndarray]:
    """Return PtychoPINN's outputs under the contract's names; none where the file lacks them."""
    if graph == PATCHES:
        patches = arrays.get("object_patches")
        return (
            {}
            if patches is None or not patches.size
            else {contract.OBJECT_REAL: patches.real, contract.OBJECT_IMAG: patches.imag}
        )
    names = [info["name"] for info in graph_io(model.spec, graph)[1]]
    stored = dict(
        zip(
            [contract.PREDICTED, *[name for name in names if name != contract.PREDICTED]],
            ("pred_diffraction", "amp", "phase"),
            strict=False,
        )
    )
    return {name: arrays[key] for name, key in stored.items() if name in names and key in arrays and arrays[key].size}


def _pool(arrays: Mapping[str, np.ndarray], model: PtychoModel, graph: str, path: Path) -> Pool:
    spec = model.spec
    needed = NEEDED[PATCHES] if spec.supervised else NEEDED[graph]
    if missing := [name for name in needed if name not in arrays]:
        raise BundleError(f"{path}: lacks {', '.join(missing)}, without which its outputs cannot be computed again")
    groups = len(arrays["x"])
    feed = {name: arrays[key] for key, name in INPUTS.items() if key in arrays}
    if "probe" in arrays:
        probe = arrays["probe"].reshape(-1, *arrays["probe"].shape[-2:])
        feed |= {contract.PROBE_REAL: probe.real, contract.PROBE_IMAG: probe.imag}
    feed.setdefault(contract.EXPERIMENT_ID, np.zeros(groups, np.int64))
    shapes = {
        contract.DIFFRACTION: (groups, spec.in_channels, spec.N, spec.N),
        contract.POSITIONS: (groups, spec.C, 1, 2),
    }
    shapes |= dict.fromkeys((contract.INPUT_SCALE, contract.OUTPUT_SCALE), (groups, 1, 1, 1))
    for name, shape in shapes.items():
        if name in feed and feed[name].shape != shape:
            raise BundleError(f"{path}: {name} has shape {feed[name].shape}; this model takes {shape}")
    ids = feed[contract.EXPERIMENT_ID]
    if ids.shape != (groups,) or ids.min() < 0 or ids.max() >= spec.num_datasets:
        raise BundleError(f"{path}: experiment_ids are no numbers from 0 to {spec.num_datasets - 1}, one a group")
    kinds = [path.name] * groups
    feed = {
        k: np.ascontiguousarray(v, np.int64 if k == contract.EXPERIMENT_ID else np.float32) for k, v in feed.items()
    }
    return Pool(feed, kinds, path.name, path.name)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected an NPZ of PtychoPINN's own outputs")
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{path}: has more than {MAX_BYTES} bytes; a few groups of patterns are enough")
    try:
        arrays = read_npz(path.read_bytes(), path.name, MAX_BYTES, "fiubc")
    except (DamagedExportError, OSError) as error:
        raise BundleError(f"{path}: cannot be read as NPZ ({error}); expected PtychoPINN's own outputs") from error
    for name, value in arrays.items():
        if value.dtype.kind not in "fiuc" or not np.isfinite(value).all():
            raise BundleError(f"{path}: {name} holds {value.dtype} or values that are not finite; expected numbers")
    return arrays
