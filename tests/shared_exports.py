"""Exported bundles that many tests look at: each is exported once in a run of the tests, and all its processes share it."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock
from sample_bundles import BUNDLES, bundle_path, members

if TYPE_CHECKING:
    from exporters import ExportResult
    from exporters.formats.trace import Files, Tracer
    from exporters.graph.family import Family
    from exporters.graph.graphs import Graph

PROVEN_BY = {
    "numpy",
    "onnx behind its network",
    "onnx by layer",
    "torchscript by layer",
    "eager",
    "torchscript",
    "onnx",
}  # rows that each graph of a sound export has, on the CPU
TINY = "tiny"  # one Fourier layer and physics without neighbours: exported in a third of the time of a real bundle


def export_once(name: str, factory: pytest.TempPathFactory) -> ExportResult:
    """Return the export of a shared bundle, or of `TINY`; whoever asks first makes it, so copy before changing a file of it."""
    return _export_once(name, _folder(factory))


@functools.cache
def _export_once(name: str, folder: Path) -> ExportResult:
    kept = folder / f"{name}.pickle"
    with FileLock(folder / f"{name}.lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_export(name, folder / name)))
        result: ExportResult = pickle.loads(kept.read_bytes())
    return result


def _export(name: str, folder: Path) -> ExportResult:
    from exporters import export_bundle
    from ptycho_torch import params

    source = source_of(name, folder.with_name(f"{name}-source"))
    # Whichever test asks first, before or after it applied parameters. The report of `TINY` alone is looked at whole.
    with params.restored(), nullcontext() if name == TINY else without_pictures():
        params.cfg.clear()
        params.cfg.update(params.defaults())
        return export_bundle(source, folder, batches=(1, 3))


def source_of(name: str, folder: Path) -> Path:
    """Return the path of a shared bundle; that of `TINY` is written into a folder."""
    return tiny_bundle(folder) if name == TINY else bundle_path(name)


@contextmanager
def without_pictures() -> Iterator[None]:
    """Leave the pictures out of reports: they take half the time of a small proof, and `test_report_forms.py` is about them."""
    from exporters.stored import write

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "pictures", lambda evidence: ())
        yield


def traced_before(result: ExportResult) -> Tracer:
    """Return what gives the files of an export again, for graphs of the same weights, with the metadata that belong to them.

    For tests that are about what follows tracing; that equal weights give equal files is a test of its own.
    """
    import onnx

    from exporters.formats.onnx import settle
    from ptycho_runtime import contract

    stored = members(result.bundle)

    def trace(family: Family, metadata: Mapping[str, Mapping[str, str]]) -> Files:
        return {graph.name: again(graph, metadata[graph.name]) for graph in family.graphs}

    def again(graph: Graph, metadata: Mapping[str, str]) -> Mapping[str, bytes]:
        model = onnx.load_from_string(stored[contract.onnx_member(graph.name)])
        settle(model, list(graph.inputs), list(graph.outputs), metadata)
        return {
            "torchscript": stored[contract.torchscript_member(graph.name)],
            "onnx": model.SerializeToString(deterministic=True),
        }

    return trace


def tiny_bundle(folder: Path, *, equal: bool = True) -> Path:
    """Write a bundle that is exported quickly; returns its path. The same bytes each time; `equal`: both models have the same weights."""
    import torch

    from ptycho_torch import save_torch_bundle
    from ptycho_torch.models.module import PtychoModel
    from ptycho_torch.spec import ModelSpec

    spec = ModelSpec(
        era="J", generator="ffno", N=64, gridsize=1, output_mode="real_imag", object_big=False,
        fno_width=4, fno_modes=4, fno_blocks=1, fno_cnn_blocks=1,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        models = {role: PtychoModel(spec).eval() for role in ("autoencoder", "diffraction_to_obj")}
    if equal:
        models["autoencoder"] = models["diffraction_to_obj"]
    return save_torch_bundle(models, folder / "wts.h5", {"N": 64, "gridsize": 1})


def tiny_checkpoint(folder: Path) -> Path:
    """Write the model of `tiny_bundle` as a checkpoint with the configuration of a real one; returns its path."""
    import torch

    from ptycho_torch import load_torch_bundle, params

    whole = torch.load(BUNDLES / "ffno-2026-07-n64-g1.ckpt", weights_only=False)  # the project's own test file
    with params.restored():
        model = load_torch_bundle(tiny_bundle(folder / "of"))[0]["diffraction_to_obj"]
    whole["state_dict"] = model.state_dict()
    spec = model.spec
    whole["hyper_parameters"]["data_config"]["probe_scale"] = spec.probe_scale
    whole["hyper_parameters"]["model_config"] |= {
        "fno_width": spec.fno_width, "fno_modes": spec.fno_modes, "fno_blocks": spec.fno_blocks, "fno_cnn_blocks": spec.fno_cnn_blocks,
        "object_big": spec.object_big, "object_layout": "single_patch", "training_canvas": "independent",
    }  # fmt: skip
    torch.save(whole, folder / "tiny.ckpt")
    return folder / "tiny.ckpt"


def _folder(factory: pytest.TempPathFactory) -> Path:
    """Return a folder of this run of the tests, the same for all its processes."""
    base = factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen-") else base) / "exported-once"
    folder.mkdir(exist_ok=True)
    return folder
