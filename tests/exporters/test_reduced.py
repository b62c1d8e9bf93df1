"""Variants in reduced precision: made, judged, stored, proven again, run."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from cuda_kernels import left_to_the_cpu
from onnx import helper, numpy_helper
from sample_bundles import DEMO, ROOT, changed, members
from shared_exports import traced_before

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
pytest.importorskip("openvino", reason="OpenVINO is not installed")

import ptycho_runtime  # noqa: E402
from exporters import ExportResult, export_bundle, verify_bundle  # noqa: E402
from exporters.cli.main import cli  # noqa: E402
from exporters.errors import BudgetNotKeptError  # noqa: E402
from exporters.options import ExportOptions  # noqa: E402
from exporters.parity import stitched  # noqa: E402
from exporters.parity.evidence import Evidence, SpeedPoint  # noqa: E402
from exporters.parity.forms.pictures import frontier, pictures  # noqa: E402
from exporters.reduced import choose  # noqa: E402
from exporters.reduced.half import half, kept_in_float32, magnitudes  # noqa: E402
from exporters.reduced.layers import Sensitivity, plan_layers  # noqa: E402
from exporters.reduced.patterns import scan_patterns  # noqa: E402
from exporters.reduced.quantize import Range, calibrate, candidates, quantized, run  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_runtime.check import check_host  # noqa: E402
from ptycho_runtime.engine.judging import raise_unless_passed  # noqa: E402
from ptycho_runtime.export.precision import Budget, PrecisionErrors  # noqa: E402
from ptycho_runtime.export.record import InputScale  # noqa: E402
from ptycho_runtime.image.options import ReconstructOptions  # noqa: E402
from ptycho_runtime.scan.read import read_scan  # noqa: E402
from ptycho_runtime.scan.scale import scale_of_energy  # noqa: E402
from ptycho_torch.bundle.write import npz_bytes  # noqa: E402
from ptycho_torch.errors import BundleError, ConfigurationError  # noqa: E402
from ptycho_torch.spec import ModelSpec  # noqa: E402

SCAN = ROOT / "examples" / "demo" / "scan.npz"
LOOSE = Budget(0.05, 0.05)


def convolution(inputs: int, uneven: bool = False) -> tuple[bytes, dict[str, np.ndarray]]:
    """Return a model of one convolution and inputs, whose channels may differ a thousandfold in size."""
    random = np.random.default_rng(0)
    size = 10.0 ** -np.linspace(0, 3, inputs) if uneven else np.ones(inputs)
    weights = (random.normal(size=(8, inputs, 3, 3)) / size[None, :, None, None]).astype(np.float32)
    bias = random.normal(size=8).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="only", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    graph = helper.make_graph(
        [node], "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [contract.BATCH_AXIS, inputs, 12, 12])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [contract.BATCH_AXIS, 8, 12, 12])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = random.random((20, inputs, 12, 12)) * size[None, :, None, None]
    return model.SerializeToString(), {"x": x.astype(np.float32)}


def relative(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    return float(np.linalg.norm(found["y"] - wanted["y"]) / np.linalg.norm(wanted["y"]))


def steps_of(model: bytes) -> tuple[float, int]:
    """Return (step, zero point) of the only quantised input."""
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(model).graph.initializer}
    return float(constants["only_step"]), int(constants["only_zero"])


class TestQuantize:
    def test_ranges_are_those_of_all_patterns(self) -> None:
        model, feed = convolution(3)
        feed["x"][19, 1] = -2.0
        found = calibrate(model, ["only"], feed)["only"]
        assert found.low.tolist() == feed["x"].min((0, 2, 3)).tolist()
        assert found.high.tolist() == feed["x"].max((0, 2, 3)).tolist()

    def test_eight_bits_cost_less_than_a_hundredth_of_even_channels(self) -> None:
        model, feed = convolution(6)
        found = quantized(model, {"only": 0.0}, calibrate(model, ["only"], feed))
        assert 1e-4 < relative(run(found, feed), run(model, feed)) < 1e-2
        types = {t.data_type for t in onnx.load_from_string(found).graph.initializer}
        assert onnx.TensorProto.INT8 in types

    def test_uneven_channels_are_brought_to_like_ranges(self) -> None:
        model, feed = convolution(8, uneven=True)
        ranges = calibrate(model, ["only"], feed)
        plain, even = (relative(run(quantized(model, {"only": e}, ranges), feed), run(model, feed)) for e in (0.0, 1.0))
        assert even < 0.01 < 0.1 < plain

    def test_negative_inputs_have_a_zero_of_their_own(self) -> None:
        model, feed = convolution(4)
        feed["x"] -= 0.5
        found = quantized(model, {"only": 0.5}, calibrate(model, ["only"], feed))
        assert relative(run(found, feed), run(model, feed)) < 1e-2

    def test_numbers_that_count_for_nothing_do_not_stretch_the_range(self) -> None:
        model, feed = convolution(4)
        loaded = onnx.load_from_string(model)
        weights = numpy_helper.to_array(loaded.graph.initializer[0]).copy()
        weights[:, 2] *= 1e-6
        loaded.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
        model = loaded.SerializeToString()
        feed["x"][:, 2] *= 3.0
        found = quantized(model, {"only": 0.0}, calibrate(model, ["only"], feed))
        step, zero = steps_of(found)
        assert zero == 0
        assert step == pytest.approx(0.4 * 3.0 / 255.0, rel=0.01), "the narrowest that holds what counts"
        assert relative(run(found, feed), run(model, feed)) < 5e-3

    def test_what_rounding_shifts_an_output_by_is_taken_off(self) -> None:
        model, feed = convolution(2)
        feed["x"] = np.round(feed["x"] * 3.0) / 3.0 * 0.1 + 0.0017  # few numbers, none of them a whole number of steps
        feed["x"][0, 0, 0, 0] = 1.0
        found = run(quantized(model, {"only": 0.0}, calibrate(model, ["only"], feed)), feed)["y"]
        inside = (slice(1, None), slice(None), slice(1, -1), slice(1, -1))
        error = (found - run(model, feed)["y"])[inside]
        assert np.abs(error.mean((0, 2, 3))).max() < 0.2 * np.sqrt(np.mean(error**2))

    def test_layers_out_of_the_plan_stay_as_they_are(self) -> None:
        model, feed = convolution(3)
        found = quantized(model, {}, {"only": Range(np.zeros(3), np.ones(3), np.zeros((3, 1), np.float32))})
        assert relative(run(found, feed), run(model, feed)) == 0.0

    def test_candidates_are_the_convolutions_that_count(self) -> None:
        model, _ = convolution(3)
        assert candidates(model) == {"only": 12 * 12 * 8 * 27}


def sensitivity(layer: str, multiply_adds: int, phase_rad: float) -> Sensitivity:
    return Sensitivity(layer, multiply_adds, 0.5, PrecisionErrors(phase_rad, phase_rad / 10))


class TestPlan:
    FOUND = (sensitivity("cheap", 1000, 0.001), sensitivity("big", 9000, 0.006), sensitivity("bad", 1000, 0.02))

    def test_layers_are_taken_as_long_as_the_budget_has_room(self) -> None:
        assert plan_layers(list(self.FOUND), Budget(0.01, 0.01), PrecisionErrors(0.0, 0.0)) == {
            "cheap": 0.5,
            "big": 0.5,
        }

    def test_what_the_rest_errs_counts(self) -> None:
        assert plan_layers(list(self.FOUND), Budget(0.01, 0.01), PrecisionErrors(0.008, 0.0)) == {"cheap": 0.5}

    def test_a_spent_budget_leaves_no_layer(self) -> None:
        assert plan_layers(list(self.FOUND), Budget(0.01, 0.01), PrecisionErrors(0.0, 0.011)) == {}


SPEC = ModelSpec(era="J", generator="cnn", N=64, gridsize=1)
SCALE = InputScale("half_n_over_rms", "", None)


class TestPatterns:
    def test_no_pattern_is_in_both_sets_and_the_choice_is_the_same_again(self) -> None:
        calibration, held_back = scan_patterns(read_scan(SCAN, 64), SPEC, SCALE)
        again = scan_patterns(read_scan(SCAN, 64), SPEC, SCALE)
        assert (len(calibration), len(held_back)) == (64, 32)
        assert [p.sha256 for p in again] == [calibration.sha256, held_back.sha256]
        both = {p.tobytes() for p in calibration.feed[contract.DIFFRACTION]} & {
            p.tobytes() for p in held_back.feed[contract.DIFFRACTION]
        }
        assert not both

    def test_scale_is_the_whole_scan_s(self) -> None:
        _, held_back = scan_patterns(read_scan(SCAN, 64), SPEC, SCALE)
        result = scale_of_energy("half_n_over_rms", read_scan(SCAN, 64).energy(64, "amplitude"), 64)
        assert np.all(held_back.feed[contract.INPUT_SCALE] == np.float32(result))

    def test_short_scan_is_refused(self, tmp_path: Path) -> None:
        with np.load(SCAN) as data:
            arrays = {name: data[name][:20] if len(data[name]) == 400 else data[name] for name in data.files}
        np.savez(tmp_path / "short.npz", **arrays)
        with pytest.raises(BundleError, match="has 20 groups of patterns; a variant in reduced precision needs 32"):
            scan_patterns(read_scan(tmp_path / "short.npz", 64), SPEC, SCALE)


@pytest.fixture(scope="module")
def made(exported: Callable[[str], ExportResult], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportResult]:
    """Export the demo with variants; how fast each way is, is set, since clocks are not for tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stitched, "MAX_PATTERNS", 48)
        patch.setattr(choose, "race", lambda sessions, feed: [1.0 + number for number in range(len(sessions))])
        trace = traced_before(exported("cnn-2026-07-n64-g1-demo"))
        options = ExportOptions(batches=(1, 5), scan=SCAN, precision="auto", budget=LOOSE, trace=trace)
        yield export_bundle(DEMO, tmp_path_factory.mktemp("reduced"), options)


class TestFrontier:
    def test_what_something_beats_in_speed_and_error_is_not_on_it(self) -> None:
        points = [
            SpeedPoint("g", name, speed, error, 0.01, stored=False)
            for name, speed, error in (
                ("a", 1.0, 1e-8),
                ("b", 1.4, 9e-3),
                ("c", 1.3, 1e-2),
                ("d", 1.6, 3e-2),
                ("e", 1.4, 2e-2),
            )
        ]
        assert [point.label for point in frontier(points)] == ["a", "b", "d"]

    def test_is_a_picture_of_the_report(self) -> None:
        evidence = Evidence(
            "demo", speeds=[SpeedPoint("diffraction_to_obj", "int8 (13 layers)", 1.44, 9.3e-3, 0.01, stored=True)]
        )
        (picture,) = pictures(evidence)
        assert picture.alt == "Speed over float32 against phase error: int8 (13 layers) 1.44 times as fast, 9.3e-03 rad"
        assert picture.uri.startswith("data:image/png;base64,iVBOR")


@pytest.mark.long
class TestStored:
    def test_fastest_way_is_stored_beside_float32(self, made: ExportResult) -> None:
        stored = members(made.bundle)
        info = json.loads(stored[contract.EXPORTS_JSON])
        assert [entry["graph"] for entry in info["variants"]] == ["diffraction_to_obj", contract.CENTRE]
        for entry in info["variants"]:
            assert entry["int8_layers"]
            assert entry["file"]["path"] == contract.int8_member(entry["graph"])
            assert contract.onnx_member(entry["graph"]) in stored
            assert entry["errors"]["phase_rad"] <= entry["budget"]["phase_rad"] == 0.05
            assert (entry["calibration"]["groups"], entry["held_back"]["groups"]) == (64, 32)
            assert len({entry["calibration"]["sha256"], entry["held_back"]["sha256"]}) == 2
        assert len(stored[contract.int8_member(contract.CENTRE)]) < 0.7 * len(
            stored[contract.onnx_member(contract.CENTRE)]
        )

    def test_what_was_tried_is_told(self, made: ExportResult) -> None:
        assert next(line.split(": ")[1] for line in made.variants if " × " in line) == "openvino float32"
        assert made.variants[-1].startswith(f"{contract.CENTRE}: stored: openvino int8 (")

    def test_report_has_a_row_with_its_own_budget(self, made: ExportResult) -> None:
        rows = [row for row in made.report.rows if row.runtime == "openvino"]
        assert [row.graph for row in rows] == ["diffraction_to_obj", contract.CENTRE]
        for row in rows:
            name, share = row.worst()
            assert row.verdict == "passed"
            assert row.outputs[name]["allowed_max_abs"] == LOOSE.phase_rad
            assert 0.0 < share <= 1.0
        for file in ("parity.json", "report.html", "parity.md", "parity.junit.xml"):
            assert "openvino" in (made.folder / file).read_text()

    def test_verify_proves_it_again_from_the_weights(self, made: ExportResult) -> None:
        report = verify_bundle(made.bundle, batches=(1, 5))
        assert report.passed, report.summary()
        assert sum(row.runtime == "openvino" and row.verdict == "passed" for row in report.rows) == 2

    def test_other_weights_in_a_variant_are_found(self, made: ExportResult, tmp_path: Path) -> None:
        report = verify_bundle(with_other_weights(made, tmp_path), batches=(1, 5))
        assert not report.passed
        failed = report.failures()
        assert [(row.graph, row.runtime) for row in failed] == [(contract.CENTRE, "openvino")]

    def test_other_reference_is_found(self, made: ExportResult, tmp_path: Path) -> None:
        stored = members(made.bundle)
        with np.load(io.BytesIO(stored[contract.VARIANT_NPZ])) as data:
            arrays = {name: value * 1.001 if name == contract.OBJECT_REAL else value for name, value in data.items()}
        info = json.loads(stored[contract.EXPORTS_JSON])
        new = npz_bytes(arrays)
        info["variant_patterns"] |= {"sha256": hashlib.sha256(new).hexdigest(), "size_bytes": len(new)}
        bundle = changed(
            made.bundle,
            tmp_path / "w.zip",
            {contract.VARIANT_NPZ: new, contract.EXPORTS_JSON: json.dumps(info).encode()},
        )
        report = verify_bundle(bundle, batches=(1, 5))
        assert "variant_patterns.npz: object_real is 1.0e-03 away from what the weights give" in report.summary()


def with_other_weights(made: ExportResult, folder: Path) -> Path:
    """Return the bundle with a wrong centre variant that `exports.json` vouches for."""
    stored = members(made.bundle)
    name = contract.int8_member(contract.CENTRE)
    model = onnx.load_from_string(stored[name])
    steps = next(t for t in model.graph.initializer if t.name.endswith("_weight_steps"))
    steps.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(steps) * np.float32(1.5), steps.name))
    data = model.SerializeToString()
    info = json.loads(stored[contract.EXPORTS_JSON])
    entry = next(entry for entry in info["variants"] if entry["graph"] == contract.CENTRE)
    entry["file"] |= {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    return changed(made.bundle, folder / "bad.zip", {name: data, contract.EXPORTS_JSON: json.dumps(info).encode()})


@pytest.mark.long
class TestOnAHost:
    def test_scan_is_reconstructed_in_reduced_precision_within_the_budget(self, made: ExportResult) -> None:
        scan = read_scan(SCAN, 64)
        found = ptycho_runtime.open(made.bundle, "cpu", precision="auto").reconstruct(
            scan, ReconstructOptions(quality=False)
        )
        right = ptycho_runtime.open(made.bundle, "cpu").reconstruct(scan, ReconstructOptions(quality=False))
        assert found.note.startswith("openvino int8")
        assert right.note == ""
        error = np.linalg.norm(found.object - right.object) / np.linalg.norm(right.object)
        assert 1e-5 < error < 0.05

    def test_patches_too(self, made: ExportResult) -> None:
        with np.load(SCAN) as data:
            patterns = data["diff3d"][:40]
        scale = 0.032
        found, right = (
            ptycho_runtime.open(made.bundle, "cpu", precision=p).predict(patterns, scale) for p in ("auto", "float32")
        )
        assert 1e-5 < np.linalg.norm(found - right) / np.linalg.norm(right) < 0.05

    def test_wrong_variant_is_not_run(self, made: ExportResult, tmp_path: Path) -> None:
        bundle = with_other_weights(made, tmp_path)
        scan = read_scan(SCAN, 64)
        found = ptycho_runtime.open(bundle, "cpu", precision="auto").reconstruct(
            scan, ReconstructOptions(quality=False)
        )
        assert (
            "on the patterns stored with it; its budget is phase 0.05 rad, amplitude 5 %; float32 is right"
            in found.note
        )
        right = ptycho_runtime.open(made.bundle, "cpu").reconstruct(scan, ReconstructOptions(quality=False))
        assert np.array_equal(found.object, right.object)

    def test_check_judges_the_variants_too(self, made: ExportResult, tmp_path: Path) -> None:
        rows = check_host(ptycho_runtime.open_export(made.bundle), ptycho_runtime.RunOptions("cpu"))
        assert [row.graph for row in rows if "openvino int8" in row.device] == ["diffraction_to_obj", contract.CENTRE]
        raise_unless_passed(rows, "demo")
        rows = check_host(
            ptycho_runtime.open_export(with_other_weights(made, tmp_path)), ptycho_runtime.RunOptions("cpu")
        )
        assert [row.graph for row in rows if not row.passed] == [contract.CENTRE]

    def test_damaged_variant_is_refused(self, made: ExportResult, tmp_path: Path) -> None:
        name = contract.int8_member(contract.CENTRE)
        bundle = changed(made.bundle, tmp_path / "w.zip", {name: members(made.bundle)[name][:-1]})
        with pytest.raises(ptycho_runtime.DamagedExportError, match=f"{name} is not the file that was exported"):
            ptycho_runtime.open_export(bundle)

    @pytest.mark.parametrize(
        ("change", "field"),
        [({"graph": "autoencoder2"}, "graph"), ({"engine": "sh"}, "engine"), ({"precision": "float8"}, "precision"),
         ({"budget": {"phase_rad": -1, "amplitude_rel": 1}}, "budget.phase_rad"), ({"budget": {}}, "budget"),
         ({"int8_layers": None}, "int8_layers"), ({"errors": {"phase_rad": "x", "amplitude_rel": 1}}, "errors.phase_rad")],
    )  # fmt: skip
    def test_garbled_variant_is_refused(
        self, change: dict[str, object], field: str, made: ExportResult, tmp_path: Path
    ) -> None:
        info = json.loads(members(made.bundle)[contract.EXPORTS_JSON])
        info["variants"][0] |= change
        bundle = changed(made.bundle, tmp_path / "w.zip", {contract.EXPORTS_JSON: json.dumps(info).encode()})
        with pytest.raises(ptycho_runtime.DamagedExportError, match=rf"exports\.json.*variants\[0\]\.{field}"):
            ptycho_runtime.open_export(bundle)


class TestRefusals:
    @pytest.mark.long
    def test_budget_that_float32_does_not_keep(self, tmp_path: Path) -> None:
        with pytest.raises(BudgetNotKeptError, match=r"float32 itself errs phase .* the budget is phase 1e-09 rad"):
            export_bundle(DEMO, tmp_path, batches=(1, 5), scan=SCAN, precision="auto", budget=Budget(1e-9, 1e-9))
        assert not list(tmp_path.glob("*.zip"))
        assert (tmp_path / "report.html").is_file()

    @pytest.mark.long
    def test_precision_by_name_that_does_not_keep_the_budget(self, tmp_path: Path) -> None:
        with pytest.raises(BudgetNotKeptError, match="int8 does not keep the budget of phase 1e-05 rad"):
            export_bundle(DEMO, tmp_path, batches=(1, 5), scan=SCAN, precision="int8", budget=Budget(1e-5, 1e-5))
        assert not list(tmp_path.glob("*.zip"))

    def test_precision_without_scan_or_budget(self, tmp_path: Path) -> None:
        for given in ({"scan": SCAN}, {"budget": LOOSE}):
            with pytest.raises(ConfigurationError, match="needs a budget and a scan"):
                export_bundle(DEMO, tmp_path, precision="auto", **given)

    def test_command_line_says_it_in_one_line(self, tmp_path: Path) -> None:
        from click.testing import CliRunner

        arguments = ["export", str(DEMO), "--out", str(tmp_path), "--precision", "auto", "--scan", str(SCAN)]
        done = CliRunner().invoke(cli, [*arguments, "--budget", "phase=1%"])
        assert done.exit_code == 2
        assert "expected such as phase=0.01rad,amp=1%" in done.stderr


@pytest.fixture(scope="module")
def made16(exported: Callable[[str], ExportResult], tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """Export the demo with float16 variants."""
    folder = tmp_path_factory.mktemp("float16")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stitched, "MAX_PATTERNS", 48)
        trace = traced_before(exported("cnn-2026-07-n64-g1-demo"))
        budget = Budget(0.002, 0.002)
        options = ExportOptions(batches=(1, 5), scan=SCAN, precision="float16", budget=budget, trace=trace)
        return export_bundle(DEMO, folder, options)


class TestFloat16:
    """float16 is for CUDA; here it is emulated on the CPU, which rounds every value as CUDA does and proves nothing about speed."""

    def test_layers_near_an_end_of_float16_stay_in_float32(self) -> None:
        found = {"fine": (0.1, 20.0), "deep": (1e-5, 1.0), "shallow": (0.9e-3, 1.0), "large": (1.0, 5000.0)}
        assert kept_in_float32(found) == ["deep", "shallow", "large"]

    def test_magnitudes_are_those_of_the_layer(self) -> None:
        model, feed = convolution(3)
        wanted = np.abs(run(model, feed)["y"])
        median, largest = magnitudes(model, feed)["only"]
        assert largest == wanted.max()
        assert median == np.median(wanted[wanted > 0])

    def test_kept_layer_computes_in_float32(self) -> None:
        model, feed = convolution(3)
        coarse, kept = (onnx.load_from_string(half(model, keep)).graph for keep in ([], ["only"]))
        types = [next(t.data_type for t in graph.initializer if t.name == "w") for graph in (coarse, kept)]
        assert types == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]
        assert 1e-5 < relative(run(half(model, []), feed), run(model, feed)) < 2e-3

    @pytest.mark.long
    def test_variant_is_judged_and_its_speed_is_not_invented(self, made16: ExportResult) -> None:
        info = json.loads(members(made16.bundle)[contract.EXPORTS_JSON])
        assert [(v["graph"], v["engine"], v["precision"], v["file"]["path"]) for v in info["variants"]] == [
            (graph, "onnxruntime", "float16", contract.float16_member(graph))
            for graph in ("diffraction_to_obj", contract.CENTRE)
        ]
        assert {v["times_as_fast"] for v in info["variants"]} == {None}
        assert "speed not measured (no CUDA device)" in made16.variants[0]
        rows = [row for row in made16.report.rows if row.precision == "float16"]
        assert {(row.device, row.verdict) for row in rows} == {("cuda emulated", "passed")}

    @pytest.mark.long
    def test_every_operator_has_a_kernel_on_cuda(self, made16: ExportResult) -> None:
        stored = members(made16.bundle)
        for graph in ("diffraction_to_obj", contract.CENTRE):
            assert left_to_the_cpu(onnx.load_from_string(stored[contract.float16_member(graph)])) == []

    @pytest.mark.long
    def test_verify_proves_it_again(self, made16: ExportResult) -> None:
        report = verify_bundle(made16.bundle, batches=(1, 5))
        assert report.passed, report.summary()
        assert sum(row.precision == "float16" and row.verdict == "passed" for row in report.rows) == 2

    @pytest.mark.long
    def test_host_without_cuda_runs_float32_and_says_so(self, made16: ExportResult) -> None:
        opened, note = ptycho_runtime.open(made16.bundle, "cpu", precision="auto").variant()
        assert opened is None
        assert "has no variant in reduced precision for cpu" in note
        rows = check_host(ptycho_runtime.open_export(made16.bundle), ptycho_runtime.RunOptions("cpu"))
        assert [row.verdict.split(":")[0] for row in rows if "float16" in row.device] == ["not run", "not run"]
        raise_unless_passed(rows, "demo")
