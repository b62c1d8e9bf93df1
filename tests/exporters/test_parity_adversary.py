"""Ways to make a bad export look proven, each of which must be noticed."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sample_bundles import changed, members
from shared_exports import TINY
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
onnx = pytest.importorskip("onnx")

from exporters import ExportResult, verify_bundle  # noqa: E402
from exporters.cli.main import cli  # noqa: E402
from exporters.parity import alone, sweep  # noqa: E402
from exporters.parity.golden import make_golden  # noqa: E402
from exporters.parity.matrix import run_parity  # noqa: E402
from exporters.stored.open import golden_problems  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_runtime.errors import DamagedExportError, NotExportedError  # noqa: E402
from ptycho_torch import load_torch_bundle  # noqa: E402
from ptycho_torch.errors import UnsafeContentError  # noqa: E402

Exported = Callable[[str], ExportResult]
OTHER = "cnn-2026-07-n64-g1-demo"
AUTO = "autoencoder"


def forged(bundle: Path, target: Path, new: dict[str, bytes | None], edit: Callable[[Any], Any] | None = None) -> Path:
    """Copy a bundle with members replaced and `exports.json` made to agree with them, then edited."""
    info = json.loads(members(bundle)["exports.json"])
    stated = [info["golden"], *(file for graph in info["graphs"].values() for file in graph["files"].values())]
    for file in stated:
        data = new.get(file["path"])
        if data is not None:
            file |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    if edit is not None:
        edit(info)
    return changed(bundle, target, {**new, "exports.json": json.dumps(info).encode()})


class TestExportsJson:
    @pytest.mark.parametrize(
        ("edit", "message"),
        [
            (lambda e: e["graphs"].pop(AUTO), "graphs lacks autoencoder, which a model of this kind has"),
            (lambda e: e["graphs"][AUTO]["files"]["onnx"].pop("path"), "lacks graphs.autoencoder.files.onnx.path"),
            (lambda e: e["graphs"][AUTO]["files"]["onnx"].pop("sha256"), "lacks graphs.autoencoder.files.onnx.sha256"),
            (
                lambda e: e["graphs"][AUTO]["files"]["onnx"].update(sha256=None),
                "graphs.autoencoder.files.onnx.sha256 is None; expected a SHA-256 of 64 hexadecimal digits",
            ),
            (lambda e: e["graphs"][AUTO]["files"].pop("torchscript"), "expected the formats onnx and torchscript"),
            (lambda e: e["golden"].pop("path"), "lacks golden.path"),
            (lambda e: e["golden"].update(path="other.npz"), "golden.path is 'other.npz'; expected 'golden.npz'"),
            (lambda e: e.update(graphs={}), "graphs lacks diffraction_to_obj"),
            (
                lambda e: (e["graphs"].pop(AUTO), e.update(left_out={AUTO: "its mean is no pattern"})),
                "holds autoencoder/model.onnx, which exports.json does not name",
            ),
        ],
    )
    def test_what_does_not_name_every_file_is_refused(
        self, edit: Callable[[Any], Any], message: str, exported: Exported, tmp_path: Path
    ) -> None:
        with pytest.raises(DamagedExportError) as caught:
            verify_bundle(forged(exported(TINY).bundle, tmp_path / "w.zip", {}, edit))
        assert message in str(caught.value)
        assert str(caught.value).endswith("; export the bundle again")

    def test_a_graph_that_was_taken_out_and_explained_away_is_missed(self, exported: Exported, tmp_path: Path) -> None:
        def taken_out(info: Any) -> None:
            del info["graphs"][AUTO]
            info["left_out"] = {AUTO: "its mean is no pattern"}

        new: dict[str, bytes | None] = {contract.onnx_member(AUTO): None, contract.torchscript_member(AUTO): None}
        message = r"names diffraction_to_obj; the bundle's own weights give autoencoder, diffraction_to_obj; export"
        with pytest.raises(NotExportedError, match=message):
            verify_bundle(forged(exported(TINY).bundle, tmp_path / "w.zip", new, taken_out))

    def test_a_good_file_elsewhere_does_not_stand_for_the_one_that_runs(
        self, exported: Exported, tmp_path: Path
    ) -> None:
        member = contract.onnx_member(AUTO)
        good = members(exported(TINY).bundle)[member]

        def elsewhere(info: Any) -> None:
            info["graphs"][AUTO]["files"]["onnx"] |= {
                "path": "good/model.onnx",
                "sha256": hashlib.sha256(good).hexdigest(),
            }

        new = {"good/model.onnx": good, member: with_flipped_weight(good)}
        with pytest.raises(
            DamagedExportError, match=r"path is 'good/model\.onnx'; expected 'autoencoder/model\.onnx'; "
        ):
            verify_bundle(forged(exported(TINY).bundle, tmp_path / "w.zip", new, elsewhere))


class TestFiles:
    def test_an_onnx_file_from_other_weights_with_forged_digests_and_metadata_fails(
        self, exported: Exported, tmp_path: Path
    ) -> None:
        member = contract.onnx_member(AUTO)
        right = onnx.load_from_string(members(exported(TINY).bundle)[member])
        other = onnx.load_from_string(members(exported(OTHER).bundle)[member])
        del other.metadata_props[:]
        other.metadata_props.extend(right.metadata_props)
        new: dict[str, bytes | None] = {member: other.SerializeToString()}
        report = verify_bundle(forged(exported(TINY).bundle, tmp_path / "w.zip", new), batches=(1,))
        failed = {(AUTO, "onnx"), (AUTO, sweep.RUNTIME), (AUTO, alone.ONNX)}
        assert {(row.graph, row.runtime) for row in report.failures()} == failed
        assert report.problems == []

    def test_torchscript_from_other_weights_with_a_forged_digest_is_refused(
        self, exported: Exported, tmp_path: Path
    ) -> None:
        member = contract.torchscript_member(AUTO)
        other = members(exported(OTHER).bundle)[member]
        message = (
            r"^w\.zip: autoencoder/model\.torchscript\.pt: is not the TorchScript that the bundle's weights give with the same "
            rf"versions \(sha256 {hashlib.sha256(other).hexdigest()[:12]}…, .*\): its program differs in \S+ and \d+ more; "
            r"refused, it was not run; export the bundle again"
        )
        with pytest.raises(UnsafeContentError, match=message):
            verify_bundle(forged(exported(TINY).bundle, tmp_path / "w.zip", {member: other}), batches=(1,))

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", "exports.json: graphs.autoencoder.files.onnx.size_bytes is 0; expected a whole number from 1 to"),
            (b"rubbish", "autoencoder/model.onnx: is no ONNX file, or is cut short (a field reaches beyond the end)"),
        ],
    )
    def test_what_is_no_onnx_file_is_refused(
        self, data: bytes, message: str, exported: Exported, tmp_path: Path
    ) -> None:
        bundle = forged(exported(TINY).bundle, tmp_path / "w.zip", {contract.onnx_member(AUTO): data})
        with pytest.raises(DamagedExportError) as caught:
            verify_bundle(bundle, batches=(1,))
        assert str(caught.value).startswith(f"w.zip: {message}")

    def test_an_onnx_file_that_no_host_can_open_fails_its_rows(self, exported: Exported, tmp_path: Path) -> None:
        model = onnx.load_from_string(members(exported(TINY).bundle)[contract.onnx_member(AUTO)])
        # Weights of another type than what they are multiplied with.
        max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data)).data_type = onnx.TensorProto.INT32
        new: dict[str, bytes | None] = {contract.onnx_member(AUTO): model.SerializeToString()}
        report = verify_bundle(forged(exported(TINY).bundle, tmp_path / "w.zip", new), batches=(1,))
        rows = [row for row in report.failures() if row.device == "cpu"]
        assert {(row.graph, row.runtime, row.batch) for row in rows} == {
            (AUTO, "onnx", 1), (AUTO, "onnx", 5), (AUTO, "onnx", 12), (AUTO, sweep.RUNTIME, 4), (AUTO, alone.ONNX, 2),
        }  # fmt: skip
        reasons = {
            "onnx": "it cannot be opened: DamagedExportError: onnxruntime refuses the graph: ",
            sweep.RUNTIME: "it cannot be cut where its network ends (onnxruntime refuses the graph: ",
            alone.ONNX: "its layers cannot be run (onnxruntime refuses the graph: ",
        }
        assert all(row.reason.startswith(reasons[row.runtime]) for row in rows)

    def test_swapped_graphs_fail(self, exported: Exported, tmp_path: Path) -> None:
        stored = members(exported(TINY).bundle)
        one, two = (contract.onnx_member(graph) for graph in contract.GRAPHS)
        report = verify_bundle(
            forged(exported(TINY).bundle, tmp_path / "w.zip", {one: stored[two], two: stored[one]}), batches=(1,)
        )
        assert {row.graph for row in report.failures()} == set(contract.GRAPHS)


@pytest.fixture(scope="module")
def fresh(exported: Exported) -> bytes:
    """Return golden.npz as the weights give it."""
    models, _ = load_torch_bundle(exported(TINY).bundle)
    return make_golden(models, models[AUTO].spec)


class TestGolden:
    def edited(self, fresh: bytes, part: str, factor: list[float] | float) -> bytes:
        with np.load(io.BytesIO(fresh)) as data:
            arrays = dict(data)
        name = next(key for key in arrays if f".{part}." in key)
        arrays[name] = arrays[name] * np.array(factor, arrays[name].dtype)
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return buffer.getvalue()

    def test_the_same_weights_give_it_again(self, fresh: bytes) -> None:
        assert golden_problems(fresh, fresh) == []

    def test_allowed_errors_may_differ_by_host_but_not_by_orders(self, fresh: bytes) -> None:
        assert golden_problems(self.edited(fresh, "allowed", [2.0, 0.5]), fresh) == []

    @pytest.mark.parametrize(
        ("part", "factor"),
        [
            ("allowed", [1.0, 50.0]),
            ("allowed", [50.0, 1.0]),
            ("allowed", float("nan")),
            ("reference", 1.00001),
            ("input", 1.00001),
        ],
    )
    def test_one_that_would_let_a_host_pass_is_a_problem(self, part: str, factor: Any, fresh: bytes) -> None:
        assert len(golden_problems(self.edited(fresh, part, factor), fresh)) == 1

    @pytest.mark.parametrize("data", [b"", b"rubbish", b"PK\x03\x04rubbish", b"\x93NUMPY\x01\x00rubbish"])
    def test_one_that_cannot_be_read_is_a_problem(self, data: bytes, fresh: bytes) -> None:
        assert golden_problems(data, fresh) == [
            "golden.npz: cannot be read (File is not a zip file); export the bundle again"
        ]


class TestWeights:
    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite_let_nothing_pass(self, value: float, exported: Exported) -> None:
        models, _ = load_torch_bundle(exported(TINY).bundle)
        with torch.no_grad():
            next(models[AUTO].parameters()).view(-1)[0] = value
            largest = max(models[AUTO].parameters(), key=lambda weight: weight.numel())
            largest.view(-1)[0] = value
        stored = members(exported(TINY).bundle)
        files = {
            AUTO: {"onnx": stored[contract.onnx_member(AUTO)], "torchscript": stored[contract.torchscript_member(AUTO)]}
        }
        report = run_parity(models, models[AUTO].spec, files, batches=(1,), devices=("cpu",))
        # What lies behind the network is fed made-up values in place of the network's own, so these weights do not reach it.
        reached = [row for row in report.rows if row.runtime != sweep.RUNTIME]
        whole = {"numpy", "eager", "torchscript", "onnx"}
        assert {row.runtime for row in reached} == {*whole, alone.ONNX, alone.SCRIPT}
        assert {row.verdict for row in reached} == {"failed"}
        assert not report.passed
        assert report.summary().startswith(
            "parity failed: autoencoder numpy on cpu, batch 1: predicted_diffraction holds 4096 values that are not finite"
        )


@pytest.mark.usefixtures("without_pictures")
class TestCommands:
    def run(self, *arguments: object) -> Any:
        return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)

    def test_one_batch_size_is_not_taken_for_a_proof(self, exported: Exported, tmp_path: Path) -> None:
        done = self.run("verify", exported(TINY).bundle, "--batches", "1", "--report", tmp_path)
        assert done.exit_code == 0
        rows = json.loads((tmp_path / "parity.json").read_text())["rows"]
        batches = {
            runtime: {row["batch"] for row in rows if row["runtime"] == runtime}
            for runtime in {row["runtime"] for row in rows}
        }
        # The export had tried up to 11: one more is tried here.
        assert batches == {
            "numpy": {1}, sweep.RUNTIME: {4}, alone.ONNX: {2}, alone.SCRIPT: {2}, "eager": {1, 5, 12}, "torchscript": {1, 5, 12}, "onnx": {1, 5, 12},
        }  # fmt: skip
        made_up = {sweep.RUNTIME, alone.ONNX, alone.SCRIPT}
        pool = [row["inputs"] for row in rows if row["runtime"] not in made_up]
        assert {kind for inputs in pool for kind in inputs.split(", ")} == {
            "simulated", "all zero", "one photon", "saturated", "wide range",
        }  # fmt: skip
        assert {row["inputs"] for row in rows if row["runtime"] in made_up} == {sweep.INPUTS, alone.INPUTS}

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
    def test_no_form_of_the_report_passes_where_a_required_device_is_absent(
        self, exported: Exported, tmp_path: Path
    ) -> None:
        bundle = exported(TINY).bundle
        done = self.run("verify", bundle, "--batches", "1", "--require", "cuda", "--report", tmp_path)
        assert done.exit_code == 4
        assert json.loads((tmp_path / "parity.json").read_text())["verdict"] == "failed"
        assert (tmp_path / "parity.md").read_text().startswith("### ❌")
        assert (
            '<p class="verdict failed">parity failed: required device did not run'
            in (tmp_path / "report.html").read_text()
        )
        assert 'failures="0"' not in (tmp_path / "parity.junit.xml").read_text()

    def test_compare_takes_whole_reports_only(self, exported: Exported, tmp_path: Path) -> None:
        whole = exported(TINY).folder / "parity.json"
        document = json.loads(whole.read_text())
        document["rows"] = document["rows"][1:]
        (tmp_path / "cut.json").write_text(json.dumps(document))
        done = self.run("compare", whole, tmp_path / "cut.json")
        assert done.exit_code == 2
        assert "rows; expected the" in done.stderr
        assert self.run("compare", whole, whole).stdout == "no change beyond rounding; both passed\n"

    def test_scan_of_another_size_is_one_line(self, exported: Exported, tmp_path: Path) -> None:
        np.savez(tmp_path / "s.npz", diff3d=np.ones((3, 32, 32)), probeGuess=np.ones((32, 32)))
        done = self.run("verify", exported(TINY).bundle, "--scan", tmp_path / "s.npz")
        assert done.exit_code == 2
        assert "patterns are 32 × 32 pixels, the model takes 64 × 64" in done.stderr.splitlines()[-1]


def test_the_page_fetches_nothing_and_names_the_files(exported: Exported) -> None:
    result = exported(TINY)
    page = (result.folder / "report.html").read_text()
    assert not any(word in page for word in ("http:", "https:", "<script", "<link", "@import", "url("))
    for graph in contract.GRAPHS:
        assert hashlib.sha256((result.folder / contract.onnx_member(graph)).read_bytes()).hexdigest() in page
    assert "prefers-color-scheme: dark" in page
