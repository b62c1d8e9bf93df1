"""Reduced precision on this host: a variant that an export brings runs only where its budget is kept here and now.

What a variant errs was measured where it was made. Another processor, another library or another scan may give another
error, so it is measured again: on the stored patterns when it is opened, and on a few of the scan's own before the scan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ptycho_runtime import contract
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.options import DEFAULTS, RunOptions
from ptycho_runtime.engine.session import Session
from ptycho_runtime.errors import VariantRefusedError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.export.precision import PrecisionErrors, Variant
from ptycho_runtime.metrics import field_errors


def precision_errors(outputs: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> PrecisionErrors:
    """Return what the outputs of an object graph err; infinite where one is not finite."""
    if not all(np.isfinite(value).all() for value in outputs.values()):
        return PrecisionErrors(float("inf"), float("inf"))
    found = field_errors(outputs, reference)
    return PrecisionErrors(found["phase_rad"], found["amplitude_rel"])


@dataclass(frozen=True)
class OpenedVariant:
    """A variant that kept its budget on this host, ready to run."""

    variant: Variant
    session: Session


def open_variant_session(variant: Variant, options: RunOptions = DEFAULTS) -> Session:
    """Return a session of a variant on the device that it is for.

    Raises `DeviceUnavailableError` where its engine or device is not there.
    """
    if variant.engine == "openvino":
        from ptycho_runtime.engine.openvino import OpenVinoSession

        return OpenVinoSession(variant.model, options, precision=variant.precision)
    # Its budget was kept without TF32, and a graph of its own would have to be captured for it.
    return open_session(variant.model, replace(options, device=variant.device, tf32=False, cuda_graph=False))


def open_variant(export: Export, graph: str, options: RunOptions) -> OpenedVariant:
    """Return a graph's stored variant, open and proven on this host on the patterns stored with it.

    Args:
        export: which may have one.
        graph: its name.
        options: how it is run; the device says which variant.

    Raises:
        VariantRefusedError: the export has none for the graph, or it errs more than its budget here.
        DeviceUnavailableError: its engine is not installed or cannot run it here.
    """
    variant = export.variants.get((graph, options.device))
    if variant is None:
        how = "--precision auto" if options.device == "cpu" else "--precision float16"
        raise VariantRefusedError(
            f"{export.path.name}: has no variant in reduced precision for {options.device}; export the bundle with {how}"
        )
    opened = OpenedVariant(variant, open_variant_session(variant, options))
    try:
        feed, reference = stored_patterns(export, graph)
        refuse_beyond(opened, feed, reference, "the patterns stored with it")
    except BaseException:
        opened.session.close()
        raise
    return opened


def refuse_beyond(
    opened: OpenedVariant, feed: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray], where: str
) -> PrecisionErrors:
    """Run a variant on patterns whose outputs are known and return what it errs.

    Raises `VariantRefusedError` where that is more than its budget.
    """
    variant = opened.variant
    found = precision_errors(opened.session.run(feed), reference)
    if not variant.budget.allows(found):
        raise VariantRefusedError(
            f"{variant.label} errs {found} on {where}; its budget is {variant.budget}; float32 is right"
        )
    return found


def stored_patterns(export: Export, graph: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return (inputs, outputs in float64 rounded to float32) of the held-back patterns that the variants were judged by."""
    arrays = export.variant_patterns()
    middle = contract.centre(export.N) if graph == contract.CENTRE else slice(None)
    feed = {name: arrays[name] for name in (contract.DIFFRACTION, contract.INPUT_SCALE)}
    return feed, {name: arrays[name][..., middle, middle] for name in (contract.OBJECT_REAL, contract.OBJECT_IMAG)}
