"""What an export's patterns are: roots of counts or counts, as its record has it or as the host says."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ptycho_runtime.errors import DamagedExportError, ReconstructionError
from ptycho_runtime.export.bundle import Export

DOMAINS: Final = ("amplitude", "counts")


def with_domain(export: Export, said: str | None = None) -> Export:
    """Return the export, fed what is said; what its own record says must make sense where nothing is said.

    Args:
        export: what was opened.
        said: `amplitude`, `counts`, or None for what the record has.

    Only models of rectangular physics take counts. Bundles of the default training command carry a domain of counts though they
    were trained on amplitudes, and older releases of the exporter believed them.

    Raises:
        DamagedExportError: the record contradicts itself.
        ReconstructionError: no domain is called that.
    """
    if said is not None:
        if said not in DOMAINS:
            raise ReconstructionError(f"model domain {said!r}; expected {' or '.join(DOMAINS)}")
        note = f"fed {said} as --model-domain says; the export's record has {export.domain}"
        return replace(export, domain=said, domain_note="" if said == export.domain else note)
    if export.record is None and export.domain == "counts" and export.exporter_version.startswith("0.1."):
        raise DamagedExportError(
            f"{export.path.name}: says that patterns are counts, as release {export.exporter_version} said of models that take "
            "amplitudes too, and a bare .onnx has no record of its physics; export the bundle again, or give --model-domain"
        )
    physics = None if export.record is None else export.record.spec.get("physics")
    if export.domain == "counts" and physics not in (None, "rectangular"):
        raise DamagedExportError(
            f"{export.path.name}: its record says that patterns are counts, which only models of rectangular physics take, and this "
            f"one has {physics} physics; export the bundle again, or give --model-domain amplitude"
        )
    return export
