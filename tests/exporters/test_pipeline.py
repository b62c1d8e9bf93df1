"""Export and verify as a whole: what is stored, what is refused, and that nothing is lost."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from sample_bundles import DEMO, bundle_path, changed, each, members
from shared_exports import PROVEN_BY, TINY, tiny_bundle, tiny_checkpoint, traced_before
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult, export_bundle, verify_bundle  # noqa: E402
from exporters.errors import DeviceRequiredError, ParityError  # noqa: E402
from exporters.formats.torchscript import reproducible  # noqa: E402
from exporters.formats.trace import Files  # noqa: E402
from exporters.graph.family import Family  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_runtime.errors import NotExportedError, OutputError  # noqa: E402
from ptycho_torch.bundle.write import npz_bytes  # noqa: E402
from ptycho_torch.errors import ConfigurationError, DamagedBundleError, UnsafeContentError  # noqa: E402

Exported = Callable[[str], ExportResult]
# `test_export_cli.py` makes a report whole.
pytestmark = pytest.mark.usefixtures("without_pictures")


def convolution(file: bytes) -> bytes:
    """Return the weights of the first convolution of an ONNX file."""
    graph = onnx.load_from_string(file).graph
    name = next(node.input[1] for node in graph.node if node.op_type == "Conv")
    return next(onnx.numpy_helper.to_array(tensor).tobytes() for tensor in graph.initializer if tensor.name == name)


class TestStore:
    @pytest.mark.parametrize("name", each(["cnn-2025-11-n64-g2", "cnn-2026-07-n64-g2"]))
    def test_original_members_stay_byte_for_byte_and_in_order(self, name: str, exported: Exported) -> None:
        source, result = members(bundle_path(name)), members(exported(name).bundle)
        assert list(result)[: len(source)] == list(source)
        assert all(result[key] == value for key, value in source.items())
        assert set(result) - set(source) == set(contract.export_members(exported(name).graphs))

    def test_exports_json_tells_what_is_stored(self, exported: Exported, tmp_path: Path) -> None:
        stored = members(exported(TINY).bundle)
        info = json.loads(stored["exports.json"])
        assert (info["schema"], info["schema_version"]) == (contract.SCHEMA, contract.SCHEMA_VERSION)
        for graph in contract.GRAPHS:
            for file in info["graphs"][graph]["files"].values():
                assert hashlib.sha256(stored[file["path"]]).hexdigest() == file["sha256"]
                assert len(stored[file["path"]]) == file["size_bytes"]
        assert info["bundle"]["sha256"] == hashlib.sha256(tiny_bundle(tmp_path).read_bytes()).hexdigest()
        assert info["parity"]["verdict"] == "passed"
        assert info["params"]["N"] == 64
        assert info["data"]["domain"] == "amplitude"
        assert info["input_scale"]["formula"] == "half_n_over_rms"

    def test_files_lie_beside_the_bundle(self, exported: Exported) -> None:
        result = exported(TINY)
        stored = members(result.bundle)
        for name in contract.export_members(result.graphs):
            assert (result.folder / name).read_bytes() == stored[name]
        assert json.loads((result.folder / "params_snapshot_after.json").read_text())["N"] == 64
        assert json.loads((result.folder / "params_snapshot_before.json").read_text())["N"] == 128
        tree = (result.folder / "archive_tree.txt").read_text()
        assert [line.split()[-1] for line in tree.splitlines()] == list(stored)
        suite = ET.parse(result.folder / "parity.junit.xml").getroot()
        assert int(suite.attrib["failures"]) == 0
        assert int(suite.attrib["tests"]) == len(result.report.rows) + 1  # the verdict
        assert "<script" not in (result.folder / "report.html").read_text()
        assert not list(result.folder.rglob("*.tmp"))

    def test_second_export_gives_the_same_bytes_and_keeps_the_first_source(
        self, exported: Exported, tmp_path: Path
    ) -> None:
        first = exported(TINY)
        again = export_bundle(first.bundle, tmp_path, batches=(1, 3), trace=traced_before(first)).bundle
        assert again.read_bytes() == first.bundle.read_bytes()

    # In every run, `test_graph_family.py` traces a graph of this network twice.
    @pytest.mark.long
    def test_second_export_that_traces_anew_gives_the_same_bytes(self, exported: Exported, tmp_path: Path) -> None:
        first = exported(TINY).bundle
        assert export_bundle(first, tmp_path, batches=(1, 3)).bundle.read_bytes() == first.read_bytes()

    @pytest.mark.long
    def test_models_of_different_weights_are_exported_each_as_it_is(self, exported: Exported, tmp_path: Path) -> None:
        source = tiny_bundle(tmp_path / "source", equal=False)
        result = export_bundle(source, tmp_path / "out", batches=(1,))
        assert result.report.passed
        assert verify_bundle(result.bundle, batches=(1,)).passed
        stored, shared = members(result.bundle), members(exported(TINY).bundle)
        held = {graph: convolution(stored[contract.onnx_member(graph)]) for graph in contract.GRAPHS}
        assert held["autoencoder"] != held["diffraction_to_obj"]
        # Of the bundle whose models share their weights, they are those of `diffraction_to_obj`.
        assert {convolution(shared[contract.onnx_member(graph)]) for graph in contract.GRAPHS} == {
            held["diffraction_to_obj"]
        }

    def test_in_place_augments_the_source(self, exported: Exported, tmp_path: Path) -> None:
        source = tiny_bundle(tmp_path)
        before = members(source)
        trace = traced_before(exported(TINY))
        result = export_bundle(source, tmp_path / "reports", in_place=True, batches=(1,), trace=trace)
        assert result.bundle == source
        assert not list((tmp_path / "reports").glob("*.zip"))
        after = members(source)
        assert list(after) == [*before, *contract.export_members(contract.GRAPHS)]
        assert verify_bundle(source, batches=(1,)).passed

    def test_export_onto_its_own_source_is_refused(self, tmp_path: Path) -> None:
        source = tiny_bundle(tmp_path)
        with pytest.raises(ConfigurationError, match="would replace its source"):
            export_bundle(source, tmp_path)

    def test_folder_that_cannot_be_written(self, tmp_path: Path, params_cfg: dict[str, object]) -> None:
        (tmp_path / "file").touch()
        before = dict(params_cfg)
        with pytest.raises(OutputError, match=r"cannot be written.*--out"):
            export_bundle(DEMO, tmp_path / "file" / "out")
        assert params_cfg == before

    def test_checkpoint_is_stored_whole_with_its_exports(self, exported: Exported, tmp_path: Path) -> None:
        source = tiny_checkpoint(tmp_path)
        result = export_bundle(source, tmp_path / "out", batches=(1,), trace=traced_before(exported(TINY)))
        assert result.bundle == tmp_path / "out" / "tiny.zip"
        stored = members(result.bundle)
        assert stored[source.name] == source.read_bytes()
        assert list(stored) == [source.name, *contract.export_members(contract.GRAPHS)]
        assert verify_bundle(result.bundle, batches=(1,)).passed
        with pytest.raises(ConfigurationError, match="checkpoint cannot be augmented in place"):
            export_bundle(source, tmp_path, in_place=True)


class TestFailedParity:
    def test_nothing_is_stored_but_the_report(
        self, exported: Exported, tmp_path: Path, params_cfg: dict[str, object]
    ) -> None:
        honest = traced_before(exported(TINY))

        def sabotaged(family: Family, metadata: Mapping[str, Mapping[str, str]]) -> Files:
            return {
                name: {**files, "onnx": with_flipped_weight(files["onnx"])}
                for name, files in honest(family, metadata).items()
            }

        before = dict(params_cfg)
        with pytest.raises(
            ParityError,
            match=r"parity failed: \w+ onnx( behind its network| by layer)? on cpu, batch \d+: [\w.]+ max abs .* no export was stored",
        ) as caught:
            export_bundle(tiny_bundle(tmp_path / "source"), tmp_path / "out", batches=(1,), trace=sabotaged)
        assert caught.value.report is not None
        failed = {(row.graph, row.runtime) for row in caught.value.report.failures()}
        assert {(graph, "onnx") for graph in contract.GRAPHS} <= failed
        assert {runtime for _, runtime in failed} <= {"onnx", "onnx behind its network", "onnx by layer"}
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
            "parity.json",
            "parity.junit.xml",
            "parity.md",
            "report.html",
            "worst.autoencoder.npz",
            "worst.diffraction_to_obj.npz",
        ]
        assert json.loads((tmp_path / "out" / "parity.json").read_text())["verdict"] == "failed"
        assert params_cfg == before

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
    def test_required_device_that_is_absent(self, tmp_path: Path) -> None:
        def never(family: Family, metadata: Mapping[str, Mapping[str, str]]) -> Files:
            raise AssertionError("a graph was traced")

        with pytest.raises(
            DeviceRequiredError, match=r"required device cannot be used \(cuda: no NVIDIA driver is loaded"
        ):
            export_bundle(tiny_bundle(tmp_path), tmp_path / "out", require=("cuda",), trace=never)
        assert not (tmp_path / "out").exists()


class TestVerify:
    def test_stored_files_pass(self, exported: Exported, params_cfg: dict[str, object]) -> None:
        before = dict(params_cfg)
        report = verify_bundle(exported(TINY).bundle, batches=(1, 3))
        assert report.passed, report.summary()
        assert {(r.graph, r.runtime) for r in report.rows if r.verdict == "passed"} == {
            (g, r) for g in contract.GRAPHS for r in PROVEN_BY
        }
        assert params_cfg == before

    @pytest.mark.parametrize("graph", contract.GRAPHS)
    @pytest.mark.parametrize("digest", ["kept", "forged"])
    def test_flipped_weight_names_the_graph_and_the_figure(
        self, graph: str, digest: str, exported: Exported, tmp_path: Path
    ) -> None:
        bundle = exported(TINY).bundle
        stored = members(bundle)
        bad = with_flipped_weight(stored[contract.onnx_member(graph)])
        new = {contract.onnx_member(graph): bad}
        if digest == "forged":
            info = json.loads(stored["exports.json"])
            info["graphs"][graph]["files"]["onnx"]["sha256"] = hashlib.sha256(bad).hexdigest()
            new["exports.json"] = json.dumps(info).encode()
        report = verify_bundle(changed(bundle, tmp_path / "w.zip", new), batches=(1, 3))
        assert not report.passed
        # What lies behind the network is a row of its own, and may be the worse of the two.
        assert re.match(rf"parity failed: {graph} onnx( behind its network| by layer)? on cpu", report.summary())
        assert (graph, "onnx") in {(row.graph, row.runtime) for row in report.failures()}
        assert "relative L2" in report.summary()
        assert (f"{graph}/model.onnx is not the file that was exported" in report.summary()) == (digest == "kept")
        assert {r.graph for r in report.failures()} == {graph}

    def test_torchscript_that_would_write_a_file_is_not_run(self, exported: Exported, tmp_path: Path) -> None:
        class Evil(torch.nn.Module):
            def forward(
                self, diffraction: torch.Tensor, input_scale_factor: torch.Tensor
            ) -> tuple[torch.Tensor, torch.Tensor]:
                return diffraction, torch.from_file("/etc/hostname", False, 1, dtype=torch.uint8)

        scripted = torch.jit.script(Evil())
        buffer = io.BytesIO()
        torch.jit.save(scripted, buffer)
        new = {"diffraction_to_obj/model.torchscript.pt": reproducible(buffer.getvalue())}
        with pytest.raises(UnsafeContentError, match="from_file"):
            verify_bundle(changed(exported(TINY).bundle, tmp_path / "w.zip", new))

    def test_golden_of_other_weights(self, exported: Exported, tmp_path: Path) -> None:
        bundle = exported(TINY).bundle
        with np.load(io.BytesIO(members(bundle)[contract.GOLDEN_NPZ])) as stored:
            others = {name: value * 1.001 if ".reference." in name else value for name, value in stored.items()}
        report = verify_bundle(
            changed(bundle, tmp_path / "w.zip", {contract.GOLDEN_NPZ: npz_bytes(others)}), batches=(1,)
        )
        assert not report.passed
        assert "golden.npz: " in report.summary()
        assert "away from what the weights give" in report.summary()

    def test_bundle_without_exports(self) -> None:
        with pytest.raises(NotExportedError, match="holds no exports; run ptycho-export export"):
            verify_bundle(DEMO)

    def test_member_that_was_taken_out(self, exported: Exported, tmp_path: Path) -> None:
        path = changed(exported(TINY).bundle, tmp_path / "w.zip", {"autoencoder/model.onnx": None})
        with pytest.raises(NotExportedError, match=r"lacks autoencoder/model\.onnx"):
            verify_bundle(path)

    def test_original_weights_that_changed_since(self, exported: Exported, tmp_path: Path) -> None:
        manifest = pickle.loads(members(exported(TINY).bundle)["manifest.dill"])  # the project's own test file
        new: dict[str, bytes | None] = {"manifest.dill": pickle.dumps({**manifest, "note": "edited"})}
        with pytest.raises(DamagedBundleError, match="members changed since they were exported"):
            verify_bundle(changed(exported(TINY).bundle, tmp_path / "w.zip", new))

    def test_exports_json_of_another_schema(self, exported: Exported, tmp_path: Path) -> None:
        path = changed(
            exported(TINY).bundle, tmp_path / "w.zip", {"exports.json": b'{"schema": "else", "schema_version": 9}'}
        )
        with pytest.raises(NotExportedError, match="has schema"):
            verify_bundle(path)
