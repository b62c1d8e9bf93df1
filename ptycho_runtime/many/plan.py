"""What all parts of a scan share: patterns looked at once, grouped, scaled and laid out, in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ptycho_runtime.engine.options import RunOptions
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.export.parse import MAX_SIDE_PX
from ptycho_runtime.export.record import TrustBaseline
from ptycho_runtime.files import replacing
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.image.reconstruct import grouped_and_scaled
from ptycho_runtime.image.stitch import Stitcher, probe_weights
from ptycho_runtime.many.hdf5 import opened, seal, sealed_sha256, write_hdf5
from ptycho_runtime.many.records import Fingerprint
from ptycho_runtime.scan.detector import Detector
from ptycho_runtime.scan.options import ReadOptions
from ptycho_runtime.scan.read import open_again
from ptycho_runtime.scan.scan import Scan

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor

KIND = "plan"
# Of a scan, what is one value each.
_FACTS = (
    "name", "size_px", "domain", "pixel_size_m", "pixel_height_m", "skipped", "attributes", "fit", "warnings", "has_positions", "source",
    "domain_declared",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """A plan as it lies in its file; what is known of each pattern stays there until it is asked for."""

    path: Path
    sha256: str
    """Of the file: by it parts know that they belong together."""
    bundle: str
    """Name of the exported bundle."""
    bundle_sha256: str
    model_domain: str | None
    """Where the host chose what the model is fed."""
    domain: str
    """What it is fed, `amplitude` or `counts`."""
    N: int
    scan_path: Path
    scan_fingerprint: Fingerprint
    factor: float
    """`input_scale_factor`."""
    groups: int
    run: RunOptions
    """Engine, batch and threads that every part takes: what runs, and how much at a time, shows in the last bits."""
    read: ReadOptions
    image: ReconstructOptions
    baseline: TrustBaseline | None
    note: str
    """What is to be said beside the result."""

    def refuse_other_bundle(self, path: Path, sha256: str) -> None:
        """Raise `ReconstructionError` where a bundle is not the one that was planned for."""
        if sha256 != self.bundle_sha256:
            raise ReconstructionError(
                f"{path}: is not the bundle that {self.path.name} was made for ({self.bundle}, sha256 {self.bundle_sha256[:12]}…); "
                "give that one, or prepare anew"
            )

    def refuse_other_engine(self, engine: str) -> None:
        """Raise `ReconstructionError` where patterns do not go through the engine that was planned: parts would differ in the last bits."""
        if engine != self.run.engine:
            raise ReconstructionError(
                f"{self.path.name} was made for {self.run.engine}, and {engine} is what runs; open the bundle with the plan's own options"
            )

    def refuse_other_scan(self, path: Path) -> None:
        """Raise `ReconstructionError` where a scan's file is another one than before; `FileNotFoundError` where there is none."""
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such scan")
        # Times differ from one host's copy to another's.
        name, size = self.scan_path.name, self.scan_fingerprint.size_bytes
        if (path.name, path.stat().st_size) != (name, size):
            raise ReconstructionError(
                f"{path}: is not the scan that {self.path.name} was made for ({name}, {size} bytes); give that one, or prepare anew"
            )

    def weights(self, probe: np.ndarray | None) -> np.ndarray | None:
        """Return the weights of patches' pixels (N, N), None for the smooth window."""
        return None if probe is None or self.image.weighting == "window" else probe_weights(probe)


def prepare(model: Reconstructor, scan: Scan, image: ReconstructOptions, path: Path) -> Plan:
    """Group, scale and lay out a scan once for all its parts, and write what they need.

    Args:
        model: the exported model, opened.
        scan: from `read_scan`, which has looked at all of its patterns.
        image: how the image is made.
        path: of the plan.

    Raises:
        ReconstructionError: reduced precision, which is chosen by a look at the whole scan; a scan that was built in Python; weights
            by a probe that the scan lacks; a canvas that is too large.
        ScanError: the scan is too short for a group.
        OutputError: the plan cannot be written.
    """
    export = model.export
    if scan.path is None or scan.options is None:
        raise ReconstructionError(f"{scan.name}: was built in Python; parts need a file that every process can read")
    if model.precision != "float32":
        raise ReconstructionError(
            "parts run in float32: a variant is chosen by a look at the whole scan; leave out --precision"
        )
    if image.weighting == "probe" and scan.probe is None:
        raise ReconstructionError(
            f"{scan.name}: has no probe; weight by --weighting window, or name it with --probe-key"
        )
    scan_path, read = scan.path.absolute(), scan.options
    graphs = model.graphs(image, has_probe=scan.probe is not None)
    scan, groups, factor = grouped_and_scaled(export, graphs.patches, scan, image)
    weights = None if scan.probe is None or image.weighting == "window" else probe_weights(scan.probe)
    canvas = Stitcher(scan.positions_px, export.N, weights, image.crop_px)
    baseline = export.record.trust_baseline if export.record else None
    detector = scan.detector or Detector((scan.size_px, scan.size_px), scan.fit)
    document = {
        "bundle": export.path.name,
        "bundle_sha256": export.sha256,
        "model_domain": export.domain if export.domain_note else None,
        "domain": export.domain,
        "N": export.N,
        "scan_path": str(scan_path),
        "scan_fingerprint": asdict(Fingerprint.of(scan_path)),
        "factor": factor,
        "run": asdict(replace(graphs.leading.options, batch=graphs.batch)),
        "read": asdict(read),
        "image": asdict(image),
        "baseline": None if baseline is None else asdict(baseline),
        "note": export.domain_note,
        "detector": {"shape": detector.shape, "fit": detector.fit, "centre": detector.centre},
        "scan": {name: getattr(scan, name) for name in _FACTS},
    }
    arrays = {
        "frames": scan.frames,
        "rows": scan.frames if scan.rows is None else scan.rows,
        "positions_px": scan.positions_px,
        "groups": groups,
    }
    arrays |= {} if scan.probe is None else {"probe": scan.probe}
    arrays |= {} if detector.bad is None else {"bad": detector.bad}
    attributes = {"canvas_px": np.array(canvas.shape), "document": json.dumps(document, default=str)}
    with replacing(path) as file:
        write_hdf5(file, KIND, attributes, arrays, {})
        seal(file)
    return open_plan(path)


def open_plan(path: Path) -> Plan:
    """Return a plan that `prepare` wrote.

    Raises:
        FileNotFoundError: nothing is there.
        ReconstructionError: it is no plan, or damaged.
    """
    with opened(path, KIND) as file:
        document = json.loads(file.attrs["document"])
        groups, positions = file["groups"].shape, file["positions_px"].shape
        if (
            len(groups) != 2
            or positions != (groups[0], 2)
            or any(file[name].shape != groups[:1] for name in ("frames", "rows"))
        ):
            raise ValueError(f"{positions} positions and {groups} groups")
        if not 1 <= int(document["N"]) <= MAX_SIDE_PX:
            raise ValueError(f"patterns of {document['N']} pixels")
        sha256 = sealed_sha256(path)
        baseline = document["baseline"]
        return Plan(
            path=path.absolute(),
            sha256=sha256,
            bundle=str(document["bundle"]),
            bundle_sha256=str(document["bundle_sha256"]),
            model_domain=document["model_domain"],
            domain=str(document["domain"]),
            N=int(document["N"]),
            scan_path=Path(document["scan_path"]),
            scan_fingerprint=Fingerprint(**document["scan_fingerprint"]),
            factor=float(document["factor"]),
            groups=int(groups[0]),
            # Plans of before there was a choice are of onnxruntime.
            run=RunOptions(**{"engine": "onnxruntime", **document["run"]}),
            read=_read_options(document["read"]),
            image=ReconstructOptions(**document["image"]),
            baseline=None if baseline is None else TrustBaseline(**baseline),
            note=str(document["note"]),
        )


def _read_options(document: dict[str, Any]) -> ReadOptions:
    paths = {name: Path(document[name]) for name in ("positions_file", "mask_file") if document[name] is not None}
    tuples = {name: tuple(value) for name, value in document.items() if isinstance(value, list)}
    return ReadOptions(**{**document, **paths, **tuples})


@dataclass(frozen=True)
class Slice:
    """Some groups of a plan, with the patterns that they take."""

    scan: Scan
    """Of these patterns alone; it reads them from the scan's file."""
    groups: np.ndarray
    """(k, C) indices into it."""
    ids: np.ndarray
    """(k, C) indices into the whole scan."""


def whole_scan(plan: Plan) -> tuple[Scan, np.ndarray]:
    """Return (the scan, its groups (n, C)) as they were planned; the scan's patterns cannot be read."""
    with opened(plan.path, KIND) as file:
        groups = _groups(file, 0, plan.groups)
        return _scan(plan, file, np.arange(len(groups)), _not_here), groups


def slice_of(plan: Plan, first: int, stop: int, scan: Path) -> Slice:
    """Return the groups from `first` to before `stop`, with the scan's file open for their patterns.

    Raises:
        FileNotFoundError: the plan or the scan is not there.
        ReconstructionError: one of them is another one than before.
        ScanError: the scan cannot be read as it could before.
    """
    plan.refuse_other_scan(scan)
    raw = open_again(scan, plan.N, plan.read)
    try:
        with opened(plan.path, KIND) as file:
            ids = _groups(file, first, stop)
            which = np.unique(ids)
            part = _scan(plan, file, which, raw.read)
    except BaseException:
        raw.close()
        raise
    part.close_file = raw.close
    return Slice(part, np.searchsorted(which, ids), ids)


def _groups(file: Any, first: int, stop: int) -> np.ndarray:
    """Return some groups (k, C): each pattern with its neighbours, at its own number."""
    ids = np.asarray(file["groups"][first:stop], np.int64)
    if (ids < 0).any() or (ids >= len(file["groups"])).any() or (ids[:, 0] != np.arange(first, stop)).any():
        raise ValueError("groups of patterns that are not there")
    return ids


def _scan(plan: Plan, file: Any, which: np.ndarray, read: Callable[[np.ndarray], np.ndarray]) -> Scan:
    """Return the scan of some patterns by their ids, ascending."""
    document = json.loads(file.attrs["document"])
    said = document["detector"]
    centre = None if said["centre"] is None else (int(said["centre"][0]), int(said["centre"][1]))
    bad = file["bad"][:].astype(bool) if "bad" in file else None
    rows, columns = said["shape"]
    # One read from the first to the last of them, which lie close together: groups are neighbours, and mostly so in time.
    reach = slice(int(which[0]), int(which[-1]) + 1)
    inside = which - which[0]
    return Scan(
        read=read,
        frames=file["frames"][reach][inside],
        rows=file["rows"][reach][inside],
        positions_px=file["positions_px"][reach][inside],
        detector=Detector((int(rows), int(columns)), said["fit"], centre, bad),
        probe=file["probe"][:] if "probe" in file else None,
        path=plan.scan_path,
        options=plan.read,
        energy_of_row={},
        **{name: document["scan"][name] for name in _FACTS},
    )


def _not_here(rows: np.ndarray) -> np.ndarray:
    raise ReconstructionError("the patterns of a merged scan are not at hand; open the scan itself")
