"""An export is fed what its record says, unless the record contradicts itself or the host says otherwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from ptycho_runtime.errors import DamagedExportError, ReconstructionError
from ptycho_runtime.export.bundle import Export
from ptycho_runtime.export.domain import with_domain


def export(domain: str, physics: str) -> Export:
    record = SimpleNamespace(spec={"physics": physics})
    return Export(
        Path("wts.h5.zip"),
        {},
        64,
        1,
        domain,
        "half_n_over_rms",
        None,
        "J",
        -1.0,
        record=record,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("domain", "physics"), [("amplitude", "amplitude"), ("counts", "rectangular")])
def test_record_that_makes_sense(domain: str, physics: str) -> None:
    assert with_domain(export(domain, physics)).domain == domain


def test_counts_of_a_model_that_takes_amplitudes() -> None:
    with pytest.raises(
        DamagedExportError, match="has amplitude physics; export the bundle again, or give --model-domain"
    ):
        with_domain(export("counts", "amplitude"))


def test_counts_of_a_bare_onnx_that_an_older_release_made() -> None:
    bare = replace(export("counts", ""), record=None, exporter_version="0.1.0")
    with pytest.raises(
        DamagedExportError, match=r"release 0\.1\.0 said .* no record of its physics; export the bundle"
    ):
        with_domain(bare)
    assert with_domain(bare, "counts").domain == "counts"
    assert with_domain(replace(bare, exporter_version="0.2.0")).domain == "counts"


def test_the_host_may_say_otherwise_and_it_is_said() -> None:
    said = with_domain(export("counts", "amplitude"), "amplitude")
    assert said.domain == "amplitude"
    assert said.domain_note == "fed amplitude as --model-domain says; the export's record has counts"
    assert with_domain(export("amplitude", "amplitude"), "amplitude").domain_note == ""


def test_unknown_domain() -> None:
    with pytest.raises(ReconstructionError, match="model domain 'intensity'; expected amplitude or counts"):
        with_domain(export("amplitude", "amplitude"), "intensity")
