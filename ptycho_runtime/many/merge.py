"""All parts of a scan to its image, the same to the last bit as one run gives."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ptycho_runtime.engine.hardware import usable_threads
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.core import Assembled
from ptycho_runtime.image.frc import half_scans
from ptycho_runtime.image.object_scales import ObjectScales
from ptycho_runtime.image.origin import Origin, changed, now
from ptycho_runtime.image.result import Reconstruction, Timing
from ptycho_runtime.image.stitch import Stitcher
from ptycho_runtime.image.trust.assess import assess_kept
from ptycho_runtime.image.trust.copies import Copies
from ptycho_runtime.image.trust.evidence import Kept
from ptycho_runtime.image.trust.overlap import Records, ScaledRecords
from ptycho_runtime.many.hdf5 import opened, sealed_sha256
from ptycho_runtime.many.parts import FIGURES, KIND, PartHeader, read_header
from ptycho_runtime.many.plan import Plan, open_plan, whole_scan
from ptycho_runtime.scan.scan import Scan

_NAMED = 5


class Joined:
    """Records of all parts one behind the other, read from the parts' files when they are asked for."""

    def __init__(self, pieces: Sequence[np.ndarray], count: int) -> None:
        """Join mapped arrays (k, …) of one shape and dtype; `count` records in all, of which those beyond the pieces are missing."""
        self._pieces = pieces
        self._stops = np.cumsum([len(piece) for piece in pieces])
        self.shape: tuple[int, ...] = pieces[0].shape[1:] if pieces else ()
        self.dtype = pieces[0].dtype if pieces else np.dtype(np.float32)
        self.copies = np.zeros(count, np.int64)
        self.copies[: int(self._stops[-1]) if pieces else 0] = 1

    def get(self, which: np.ndarray) -> np.ndarray:
        """Return records (k, …); zeros where one is missing."""
        found = np.zeros((len(which), *self.shape), self.dtype)
        of = np.searchsorted(self._stops, which, side="right")
        for number in np.unique(of[of < len(self._pieces)]).tolist():
            at = np.flatnonzero(of == number)
            start = int(self._stops[number]) - len(self._pieces[number])
            found[at] = self._pieces[number][which[at] - start]
        return found


@dataclass(frozen=True)
class Parts:
    """All parts of one plan, in the order of their groups."""

    plan: Plan
    headers: tuple[PartHeader, ...]


def gathered(paths: Sequence[Path], plan: Path | None = None) -> Parts:
    """Return parts, given in any order, if they are all of one plan and each once.

    Args:
        paths: of the parts.
        plan: where it lies now; where the parts say it is where None.

    Raises:
        FileNotFoundError: a part, or the plan, is not there.
        ReconstructionError: one is missing, there twice, of another plan or of another number of parts, or damaged.
    """
    headers = sorted((read_header(path) for path in paths), key=lambda header: header.which.number)
    if not headers:
        raise ReconstructionError("there are no parts; give the files that reconstruct --part wrote")
    first = headers[0]
    known = open_plan(first.plan if plan is None else plan)
    for header in headers:
        if header.plan_sha256 != known.sha256:
            raise ReconstructionError(
                f"{header.path}: is a part of another plan than {known.path}; leave it out, or give its own with --plan"
            )
        if header.engine != known.run.engine:
            raise ReconstructionError(
                f"{header.path}: was made under {header.engine}, and {known.path} is for {known.run.engine}; make it again"
            )
        if header.which.count != first.which.count:
            raise ReconstructionError(
                f"{header.path}: is one of {header.which.count} parts, and {first.path} one of {first.which.count}; give parts of one division"
            )
        if (header.first, header.stop) != header.which.groups(known):
            raise ReconstructionError(
                f"{header.path}: says that it has the groups {header.first} to {header.stop}, which part {header.which} has not; make it again"
            )
    counts = Counter(header.which.number for header in headers)
    twice = [header.path for header in headers if counts[header.which.number] > 1]
    if twice:
        raise ReconstructionError(f"{', '.join(map(str, twice[:_NAMED]))}: are the same part; give each once")
    missing = [number for number in range(1, first.which.count + 1) if number not in counts]
    if missing:
        more = ", …" if len(missing) > _NAMED else ""
        raise ReconstructionError(
            f"{len(missing)} of {first.which.count} parts are missing: {', '.join(map(str, missing[:_NAMED]))}{more}; give them too"
        )
    return Parts(known, tuple(headers))


def merge(parts: Parts) -> Reconstruction:
    """Return the image of a scan from all of its parts.

    Sums are exact, and the verdict takes patterns by ascending ids: the result is that of one run. Patches stay in the parts' files.

    Raises:
        ReconstructionError: a part is damaged, or of other sizes than the plan says.
    """
    start = time.perf_counter()
    plan = parts.plan
    scan, groups = whole_scan(plan)
    stitcher = Stitcher(scan.positions_px, plan.N, plan.weights(scan.probe), plan.image.crop_px)
    figures = {name: np.full(len(scan), np.nan, np.float64) for name in FIGURES if name != "moments"}
    figures["moments"] = np.full((len(scan), 2), np.nan, np.complex128)
    stores: dict[str, list[np.ndarray]] = {"patches": [], "amplitudes": []}
    products: list[np.ndarray] = []
    kinds: dict[str, tuple[tuple[int, ...], type]] = {
        "patches": ((stitcher.crop_px, stitcher.crop_px), np.complex64),
        "amplitudes": ((plan.N, plan.N), np.float16),
    }
    for header in parts.headers:
        with opened(header.path, KIND) as file:
            sealed_sha256(header.path)
            state = {name: file[name][()] for name in ("sums", "origin", "level")}
            if not np.isfinite(state["sums"]).all():
                raise ValueError("sums that are not finite")
            stitcher.absorb(stitcher.with_state(state))
            for name, values in figures.items():
                values[header.first : header.stop] = file[name][:]
            for name, (shape, dtype) in kinds.items():
                if name in file:
                    stores[name].append(_mapped(header.path, file[name], shape, dtype))
            if "products" in file:
                products.append(file["products"][:].reshape(header.stop - header.first, 4, 4))
    assembled = _assembled(parts, stitcher, scan, figures, _records(stores, scan, groups), products)
    seconds = time.perf_counter() - start
    headers = parts.headers
    ways = sorted({header.how for header in headers})
    notes = [plan.note, *sorted({header.note for header in headers}), f"merged from {len(headers)} parts"]
    if len(ways) > 1:
        notes.append(f"parts ran in {len(ways)} ways, which may differ in the last bits: {'; '.join(ways)}")
    return Reconstruction(
        canvas=assembled.canvas,
        scan=scan,
        input_scale_factor=plan.factor,
        groups=plan.groups,
        done=plan.groups,
        device=", ".join(sorted({header.device for header in headers})),
        note="; ".join(filter(None, notes)),
        engine="; ".join(ways),
        timing=Timing(
            seconds + sum(header.seconds for header in headers),
            sum(header.session_seconds for header in headers),
            sum(header.first_run_seconds for header in headers),
            seconds,
        ),
        trust=assembled.trust,
        object_scales=assembled.object_scales,
        ring_correlation=assembled.rings,
        origin=Origin(
            bundle=plan.bundle,
            bundle_sha256=plan.bundle_sha256,
            scan=scan.name,
            scan_path=plan.scan_path,
            options={"scan": changed(plan.read), "image": changed(plan.image)},
            engine="; ".join(ways),
            finished=now(),
        ),
    )


def _mapped(path: Path, dataset: object, of_one: tuple[int, ...], kind: type) -> np.ndarray:
    """Return a dataset of records as a mapped array, which takes no memory and no open file."""
    offset = dataset.id.get_offset()  # type: ignore[attr-defined]  # h5py has no types
    shape, dtype = dataset.shape, dataset.dtype  # type: ignore[attr-defined]
    if shape[1:] != of_one or dtype != kind:
        raise ValueError(f"records {dtype} of shape {shape}, expected (…, {of_one[0]}, {of_one[1]})")
    if offset is None or offset + int(np.prod(shape)) * dtype.itemsize > path.stat().st_size:
        raise ValueError("patches that are not all in the file")
    found: np.ndarray = np.memmap(path, dtype, "r", offset, shape)
    return found


def _records(stores: dict[str, list[np.ndarray]], scan: Scan, groups: np.ndarray) -> tuple[Records, Records]:
    """Return patches and amplitudes of each pattern."""
    count = len(scan)
    in_all = sum(map(len, stores["patches"]))
    C = in_all // count
    if in_all != count * C or C not in (1, groups.shape[1]):
        raise ReconstructionError(
            f"the parts have {in_all} patches for {count} patterns in groups of {groups.shape[1]}; make them again"
        )
    patches = Joined(stores["patches"], in_all)
    amplitudes = Joined(stores["amplitudes"], count)
    order = np.arange(count)
    return (patches if C == 1 else Copies(patches, groups, order)), amplitudes


def _assembled(
    parts: Parts,
    stitcher: Stitcher,
    scan: Scan,
    figures: dict[str, np.ndarray],
    records: tuple[Records, Records],
    products: list[np.ndarray],
) -> Assembled:
    plan, probe = parts.plan, scan.probe
    found = None
    if products and probe is not None:
        scales = ObjectScales(probe)
        for each in products:
            scales.absorb(each)
        found = scales.fit()
        stitcher.scale_parts(*found)
    fits = probe is not None and probe.shape[-2:] == (plan.N, plan.N)
    known = Kept(
        stitcher=stitcher,
        order=np.arange(len(scan)),
        positions_px=scan.positions_px,
        probe=probe if fits else None,
        **figures,
        patches=ScaledRecords(records[0], *(found or (1.0, 1.0))),
        amplitudes=records[1],
        lost="",
        threads=usable_threads(),
    )
    trust = assess_kept(known, plan.baseline)
    rings = half_scans(known.placed(), stitcher.sums) if plan.image.frc else None
    return Assembled(stitcher.result(), trust, found, rings)
