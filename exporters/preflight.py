"""What can be found out before anything is traced: a bad bundle, scan, output, budget or device ends at once. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporters.errors import DeviceRequiredError
from exporters.options import ExportOptions, ProofOptions
from exporters.parity.inputs import open_scan
from exporters.parity.report import SCHEMA
from exporters.stored import places
from ptycho_runtime import contract
from ptycho_runtime.scan.scan import Scan
from ptycho_torch.architecture import detect
from ptycho_torch.build import with_params
from ptycho_torch.bundle import BundleRecord, read_bundle
from ptycho_torch.errors import ConfigurationError
from ptycho_torch.spec import ModelSpec


@dataclass(frozen=True)
class Plan:
    """An export that nothing known so far stands against."""

    bundle: BundleRecord
    folder: Path
    """For the files beside the augmented bundle."""
    target: Path
    """The augmented bundle."""
    scan: Scan | None

    def close(self) -> None:
        """Close the scan's file."""
        if self.scan is not None:
            self.scan.close()


def plan_export(source: str | Path, out: str | Path | None, options: ExportOptions) -> Plan:
    """Return what an export will read and write.

    Args:
        source: anything `read_bundle` takes.
        out: folder for the results; `artifacts/<bundle name>` where None.
        options: what the caller decided.

    Raises:
        FileNotFoundError: the bundle or the scan is not there.
        BundleError: the bundle is refused.
        ConfigurationError: options that contradict each other.
        ScanError: the scan cannot be read without guessing.
        OutputError: the output cannot be written.
        DeviceRequiredError: a required device is not in this host.
    """
    if options.precision is not None and (options.budget is None or options.scan is None):
        raise ConfigurationError(
            "a variant in reduced precision needs a budget and a scan: give --budget such as phase=0.01rad,amp=1% and --scan"
        )
    refuse_absent_devices(options.require)
    bundle = with_params(read_bundle(source, ignore_extra=options.ignore_extra), options.params)
    folder = Path(out) if out is not None else places.default_folder(bundle)
    target = places.target_path(bundle, folder, in_place=options.in_place)
    places.check_writable(folder)
    if not options.in_place:
        places.refuse_foreign_bundle(target, force=options.force)
    places.refuse_foreign_reports(folder, places.REPORT_FILES, SCHEMA, force=options.force)
    if options.in_place:
        places.check_writable(target if bundle.kind == "folder" else target.parent)
    spec = detect(bundle, contract.DIFFRACTION_TO_OBJ, options.architecture).spec
    return Plan(bundle, folder, target, usable_scan(spec, options))


def usable_scan(spec: ModelSpec, options: ProofOptions) -> Scan | None:
    """Return the scan that a proof uses, opened and its first pattern read in the model's own domain; None where none is named.

    Raises:
        FileNotFoundError: it is not there.
        ScanError: it cannot be read without guessing.
    """
    if options.scan is None:
        return None
    scan = open_scan(Path(options.scan), spec, options.scan_options)
    scan.patterns(np.zeros(1, np.int64), spec.N, spec.measurement_domain)
    return scan


def refuse_absent_devices(require: Sequence[str]) -> None:
    """Raise `DeviceRequiredError` for a required device that this host has not, before minutes of work."""
    if not require:
        return
    from ptycho_runtime.engine.devices import why_not

    absent = {device: reason for device in require if (reason := why_not(device, tf32=True))}
    if absent:
        why = "; ".join(f"{device}: {reason}" for device, reason in absent.items())
        raise DeviceRequiredError(f"required device cannot be used ({why}); nothing was exported")
