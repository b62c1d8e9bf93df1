"""What is run in the stead of a bundle's stored TorchScript: the same program, made anew from the original weights."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch

from exporters.formats.torchscript import export_torchscript
from exporters.formats.torchscript_check import check_torchscript
from exporters.formats.torchscript_run import StoredTorchScript
from exporters.graph.graphs import build_graph, graph_io
from ptycho_runtime.export.record import ExportRecord
from ptycho_runtime.files import printable
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import UnsafeContentError
from ptycho_torch.models.module import PtychoModel
from ptycho_torch.spec import ModelSpec

# What of `exports.json` decides a TorchScript file's bytes beside the weights.
DECISIVE_TOOLS = ("torch", "numpy")
# Constants are computed where the export is made: another processor's last digits differ, and nothing else.
MAX_CONSTANT_ERROR = 1e-6
_IDENTITY = "/.data/serialization_id"


def made_anew(model: PtychoModel, graph: str, spec: ModelSpec) -> bytes:
    """Return a graph's TorchScript file from the eager model, as an export makes it."""
    return export_torchscript(build_graph(model, graph), graph_io(spec, graph)[0])


def torchscript_to_run(
    stored: bytes, anew: bytes, exports: ExportRecord, where: str, *, as_stored: bool = False
) -> tuple[bytes, str]:
    """Return the TorchScript file that may be run, and in a line what it is if it is not the stored one byte for byte.

    Args:
        stored: the file in the bundle, by anybody.
        anew: what the bundle's own weights give here, see `made_anew`.
        exports: the bundle's `exports.json`, which says what made the stored file.
        where: the file's name, for messages.
        as_stored: run the stored file as it is: a `StoredTorchScript`, which only a confined child opens.

    Raises:
        UnsafeContentError: the stored file is not what the weights give, though the versions are the same; or it does more than
            arithmetic over its own weights.
        BundleError: it is no TorchScript file.
    """
    if stored == anew:
        return anew, ""
    check_torchscript(stored, where)
    if as_stored:
        return StoredTorchScript(stored), f"{where}: run as it is stored, in a confined process"
    if differing := _other_versions(exports):
        return anew, (
            f"{where} was not run: it was made with {differing}, so it cannot be compared byte for byte; what the weights give here "
            "was run in its stead (--run-stored-torchscript runs the stored file in a confined process)"
        )
    error = _constants_error(stored, anew, where)
    if not error <= MAX_CONSTANT_ERROR:
        raise UnsafeContentError(
            f"{where}: is not the TorchScript that the bundle's weights give with the same versions (sha256 "
            f"{hashlib.sha256(stored).hexdigest()[:12]}…, expected {hashlib.sha256(anew).hexdigest()[:12]}…): {whereabouts(stored, anew, where)}; "
            "refused, it was not run; "
            "export the bundle again, or see --run-stored-torchscript"
        )
    return anew, (
        f"{where}: constants differ by {error:.0e} from those computed on this processor, the program is the same; "
        "what the weights give here was run"
    )


def _other_versions(exports: ExportRecord) -> str:
    """Return what of the versions that decide the bytes is another one here, in words."""
    here = {"ptycho-export": version("ptycho-export")}
    for tool in DECISIVE_TOOLS:
        try:
            here[tool] = version(tool)
        except PackageNotFoundError:
            continue
    then: dict[str, object] = {"ptycho-export": exports.exporter_version, **exports.tools}
    return ", ".join(
        f"{tool} {printable(then.get(tool))} (here {found})" for tool, found in here.items() if then.get(tool) != found
    )


def _constants_error(stored: bytes, anew: bytes, where: str) -> float:
    """Return the largest relative L2 error of a constant between two files that are equal otherwise; infinity if they are not."""
    then, now = _members(stored, where), _members(anew, where)
    if list(then) != list(now):
        return float("inf")
    worst = 0.0
    for name, expected in now.items():
        found = then[name]
        if found == expected or name.endswith(_IDENTITY):
            continue
        if (
            not name.partition("/")[2].startswith(("data/", "constants/"))
            or len(found) != len(expected)
            or len(found) % 4
        ):
            return float("inf")
        a, b = (np.frombuffer(data, np.float32).astype(np.float64) for data in (found, expected))
        norm = float(np.linalg.norm(b))
        error = float(np.linalg.norm(a - b)) / norm if norm > 0.0 else float("inf")
        # A NaN is no rounding.
        worst = max(worst, error) if error == error else float("inf")
    return worst


def whereabouts(stored: bytes, anew: bytes, where: str) -> str:
    """Return in words what differs between two files: which weights by name, or the program. Nothing of the stored one is run."""
    then, now = _members(stored, where), _members(anew, where)
    differing = [name for name in now if then.get(name) != now[name] and not name.endswith(_IDENTITY)]
    weights = {name for name in differing if name.partition("/")[2].startswith("data/")}
    if set(then) != set(now) or set(differing) - weights:
        strange = sorted((set(then) ^ set(now)) | (set(differing) - weights))
        return f"its program differs in {printable(strange[0])}{f' and {len(strange) - 1} more' if strange[1:] else ''}"
    contents = {now[name] for name in weights}
    # What was made here is ours to load; its modules name the weights in the order of the layers.
    made = torch.jit.load(io.BytesIO(anew))  # type: ignore[no-untyped-call]
    named = [name for name, value in made.state_dict().items() if value.numpy().tobytes() in contents]
    if not named:
        return "weights differ"
    layer, _, weight = named[0].rpartition(".")
    return f"it diverges first at {layer} ({weight}{f' and {len(named) - 1} more' if named[1:] else ''})"


def _members(data: bytes, where: str) -> Mapping[str, bytes]:
    parts = open_zip(data, where, plain=True)
    return {name: bytes(parts.buffer(name)) for name in sorted(parts)}
