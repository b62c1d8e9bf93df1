"""The worst input of a check is kept and can be run again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sample_bundles import changed, members
from shared_exports import TINY
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult, verify_bundle  # noqa: E402
from exporters.cli.main import cli  # noqa: E402
from exporters.parity.evidence import read_replay  # noqa: E402
from exporters.parity.replay import replay_file  # noqa: E402
from exporters.stored.write import store_reports  # noqa: E402
from ptycho_torch.errors import BundleError  # noqa: E402

GRAPH = "diffraction_to_obj"
Exported = Callable[[str], ExportResult]


def test_kept_input_gives_the_same_numbers_again(exported: Exported) -> None:
    folder = exported(TINY).folder
    row, same = replay_file(folder / f"worst.{GRAPH}.npz", exported(TINY).bundle)
    assert row.verdict == "passed"
    assert same == "the same numbers as then, bit for bit"
    case, _, model = read_replay((folder / f"worst.{GRAPH}.npz").read_bytes(), "x")
    shares = [
        r.worst()[1] for r in exported(TINY).report.rows if r.graph == GRAPH and r.runtime in ("onnx", "torchscript")
    ]
    assert model is None  # the bundle beside it has it
    assert row.worst()[1] == pytest.approx(max(shares))
    assert case.runtime in ("onnx", "torchscript")


def test_a_failed_file_is_kept_with_its_input(exported: Exported, tmp_path: Path) -> None:
    member = f"{GRAPH}/model.onnx"
    bad = with_flipped_weight(members(exported(TINY).bundle)[member])
    store_reports(
        tmp_path, verify_bundle(changed(exported(TINY).bundle, tmp_path / "w.zip", {member: bad}), batches=(1, 3))
    )
    kept = tmp_path / f"worst.{GRAPH}.npz"
    assert read_replay(kept.read_bytes(), "x")[2] == bad
    (tmp_path / "w.zip").unlink()
    row, same = replay_file(kept)
    assert (row.verdict, same) == ("failed", "the same numbers as then, bit for bit")
    assert CliRunner().invoke(cli, ["replay", str(kept)]).exit_code == 3
    # Against the bundle as it was exported, the same input passes.
    row, same = replay_file(kept, exported(TINY).bundle)
    assert (row.verdict, same) == ("passed", "other numbers than then")
    page = (tmp_path / "report.html").read_text()
    assert "Layer by layer: diffraction_to_obj" in page
    assert page.count("data:image/png;base64,") >= 3
    # Pictures are base64, in which any letters may stand side by side; a link has a colon, which base64 has not.
    assert not any(word in page for word in ("http:", "https:"))


def test_without_a_bundle_the_option_is_named(exported: Exported, tmp_path: Path) -> None:
    lonely = shutil.copy(exported(TINY).folder / f"worst.{GRAPH}.npz", tmp_path)
    with pytest.raises(BundleError, match=r"0 bundles lie beside it; name the exported one with --bundle"):
        replay_file(Path(lonely))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04rubbish", b"text"])
def test_anything_else_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "worst.npz"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="is no replay file"):
        replay_file(path)


def test_another_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(BundleError, match="is no replay file"):
        replay_file(tmp_path / "other.npz")


def test_missing_file(tmp_path: Path) -> None:
    assert CliRunner().invoke(cli, ["replay", str(tmp_path / "none.npz")]).exit_code == 2
