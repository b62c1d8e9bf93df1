"""A result in Python: it says what it is in one line, shows itself in notebooks, draws and saves itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import ptycho_runtime
from ptycho_runtime import OutputError, demo
from ptycho_runtime.image.result import Reconstruction


def test_repr_is_one_line(demo_result: Reconstruction) -> None:
    rows, columns = demo_result.object.shape
    assert repr(demo_result) == (
        f"<Reconstruction of scan.npz: {demo_result.trust.verdict}, {rows} × {columns} px, 50 of 50 groups on cpu>"
    )
    assert repr(replace(demo_result, done=3)).startswith("<Reconstruction of scan.npz: partial, ")


def test_notebook_shows_verdict_origin_and_picture_and_no_tags_of_files(demo_result: Reconstruction) -> None:
    name = "<script>alert(1)</script>"
    shown = replace(demo_result, scan=replace(demo_result.scan, name=name))._repr_html_()
    assert demo_result.trust.verdict in shown
    assert demo_result.origin.bundle_sha256[:12] in shown
    assert 'src="data:image/png;base64,iVBOR' in shown
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_reconstructor_says_what_it_is() -> None:
    with ptycho_runtime.open(demo.MODEL, "cpu", batch=8) as model:
        assert repr(model) == "<Reconstructor of model.onnx on cpu: 1 × 64 × 64 px amplitude, float32, batch 8>"
        assert "diffraction_to_obj" in model._repr_html_()
    assert "closed" in repr(model)


def test_figure_shows_itself_in_notebooks(demo_result: Reconstruction) -> None:
    pytest.importorskip("matplotlib")
    assert demo_result.plot()._repr_png_().startswith(b"\x89PNG")


def test_save_writes_product_picture_and_figure(demo_result: Reconstruction, tmp_path: Path) -> None:
    written = demo_result.save(tmp_path / "object.cxi", figure=tmp_path / "figure.png")
    assert [path.name for path in written] == ["object.cxi", "object.png", "figure.png"]
    assert all(path.stat().st_size > 1000 for path in written)


def test_save_never_writes_over_what_was_read(demo_result: Reconstruction) -> None:
    with pytest.raises(OutputError, match="is the same file as the scan"):
        demo_result.save(demo.SCAN, force=True)


def test_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    import exporters
    import ptycho_torch

    assert ptycho_runtime.__version__ == version("ptycho-export")
    assert ptycho_torch.__version__ == exporters.__version__ == ptycho_runtime.__version__
