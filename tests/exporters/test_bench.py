"""The bench counts right, compares right, and says what it could not measure."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from sample_bundles import members

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

import numpy as np  # noqa: E402
import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402
from rich.console import Console  # noqa: E402

from exporters.bench.case import VARIANT_GPU, WHOLE, CannotRun, Case  # noqa: E402
from exporters.bench.contenders import CONTENDERS, EAGER, FROZEN, GRAPH, ONNX, REWRITTEN, Contender, find  # noqa: E402
from exporters.bench.disturbance import busy_s, disturbance  # noqa: E402
from exporters.bench.loading import Loading  # noqa: E402
from exporters.bench.onnx_engines import BoundEngine, CopyingEngine  # noqa: E402
from exporters.bench.plot import plot_png  # noqa: E402
from exporters.bench.prepare import BenchOptions  # noqa: E402
from exporters.bench.profile import LayerTime, layer_times  # noqa: E402
from exporters.bench.race import Arena, Child, Turns, child_environment, race  # noqa: E402
from exporters.bench.report import BenchReport, Cost, Ratio, Row, spread  # noqa: E402
from exporters.bench.run import COMPILED, STOPPED, Steps, chosen_contenders, keep_what_is_there  # noqa: E402
from exporters.bench.tables import remarks, sheets, to_markdown  # noqa: E402
from exporters.cli.main import cli  # noqa: E402
from exporters.errors import ExportError  # noqa: E402
from exporters.formats.optimize import REWRITES  # noqa: E402
from exporters.graph.cost import multiply_adds, multiply_adds_by_node  # noqa: E402
from ptycho_runtime import contract  # noqa: E402
from ptycho_runtime.engine.devices import why_not  # noqa: E402
from ptycho_runtime.errors import ReconstructionError  # noqa: E402

if TYPE_CHECKING:
    from exporters import ExportResult

OPENVINO = "OpenVINO float32"


def weights(name: str, *shape: int) -> onnx.TensorProto:
    count = int(torch.tensor(shape).prod())
    return helper.make_tensor(name, TensorProto.FLOAT, shape, [0.0] * count)


def graph(
    nodes: list[onnx.NodeProto],
    shape: list[int | str],
    *initializers: onnx.TensorProto,
    output_shape: list[int | str] | None = None,
) -> bytes:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)
    made = helper.make_graph(nodes, "g", [x], [y], list(initializers))
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    data: bytes = model.SerializeToString()
    return data


class TestMultiplyAdds:
    def test_each_kind_of_product_is_counted_as_by_hand(self) -> None:
        model = graph(
            [
                helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1, 1, 1, 1]),
                helper.make_node("Conv", ["a", "d"], ["b"], "depthwise", group=6),
                helper.make_node("ConvTranspose", ["b", "t"], ["c"], "up", strides=[2, 2]),
                helper.make_node("Relu", ["c"], ["r"], "relu"),
                helper.make_node("MatMul", ["r", "m"], ["f"], "matmul"),
                helper.make_node("Flatten", ["f"], ["l"], "flatten"),
                helper.make_node("Gemm", ["l", "k"], ["y"], "gemm", transB=1),
            ],
            ["batch", 4, 8, 8],
            weights("w", 6, 4, 3, 3),
            weights("d", 6, 1, 1, 1),
            weights("t", 6, 2, 2, 2),
            weights("m", 16, 5),
            weights("k", 7, 160),
        )
        assert multiply_adds_by_node(model) == {
            "conv": 6 * 8 * 8 * 4 * 9,
            "depthwise": 6 * 8 * 8,
            "up": 6 * 8 * 8 * 2 * 4,
            "matmul": 2 * 16 * 5 * 16,
            "gemm": 7 * 160,
        }
        assert multiply_adds(model, {"batch": 3}) == 3 * multiply_adds(model)

    def test_transposed_gemm_sums_over_its_rows(self) -> None:
        model = graph([helper.make_node("Gemm", ["x", "k"], ["y"], "g", transA=1)], [5, 3], weights("k", 5, 2))
        assert multiply_adds(model) == 3 * 5 * 2

    def test_product_without_a_rule_is_named(self) -> None:
        model = graph([helper.make_node("Einsum", ["x", "x"], ["y"], "e", equation="ij,jk->ik")], [2, 2])
        with pytest.raises(ExportError, match=r"^e: the multiply-adds of Einsum have no rule$"):
            multiply_adds(model)

    def test_graph_of_a_shared_bundle(self, exported: Callable[[str], ExportResult]) -> None:
        data = members(exported("cnn-2026-07-n64-g1-demo").bundle)[contract.onnx_member(GRAPH)]
        counts = multiply_adds_by_node(data)
        # The first convolution: 3 × 3 from one pattern to 32 channels, on 64 × 64 pixels.
        assert next(iter(counts.values())) == 64 * 64 * 32 * 9
        assert multiply_adds(data, {"batch": 4, "modes": 1}) == 4 * sum(counts.values())


def report(**values: object) -> BenchReport:
    def row(contender: str, *seconds: float, batch: int = 16) -> Row:
        return Row(contender, "cpu", batch, Turns(list(seconds), 1))

    made = BenchReport(
        "wts",
        threads=2,
        patterns_per_group=4,
        multiply_adds=1_000_000_000,
        rows=[
            row(EAGER, 1.0, 2.0, 4.0),
            row(FROZEN, 0.8, 0.8, 0.8),
            row(ONNX, 0.5, 0.5, 0.5),
            Row(OPENVINO, "cpu", 16, Turns(reason="OpenVINO is not installed")),
            Row(EAGER, "cuda", 16, Turns(reason="no CUDA device")),
        ],
        costs=[
            Cost(EAGER, "cpu", [2.0, 9.0, 1.0], [300, 300, 300], 100, {"rel_l2": 1e-6}),
            Cost(ONNX, "cpu", [0.3], [60], 110, {"rel_l2": 1e-6, "amplitude_rel": 2e-6, "phase_rad": 3e-6}),
            Cost(OPENVINO, "cpu", reason="OpenVINO is not installed"),
        ],
        limits={"cpu": 40e9},
        export_s=45.0,
        disturbance={"cpu": [0.0, 0.3, 0.05]},
        host={"platform": "test", "packages": {"numpy": "2"}},
        loading=Loading(1000, 0.02, 1500, 0.01, 2000),
        layers=[
            LayerTime("network.conv", "Conv", 0.75, 0.5, "3×3, 4 → 8 channels"),
            LayerTime("layout", "ReorderInput", 0.2, 0.0),
        ],
    )
    for name, value in values.items():
        setattr(made, name, value)
    return made


class TestReport:
    def test_ratio_is_the_median_of_paired_rounds(self) -> None:
        assert report().ratio(ONNX, 16) == Ratio(4.0, 3.0, 6.0)

    def test_ratio_of_what_did_not_run_is_none(self) -> None:
        assert report().ratio(OPENVINO, 16) is None
        assert report().ratio(ONNX, 4) is None

    def test_spread_of_one_round_is_that_round(self) -> None:
        assert spread([3.0]) == Ratio(3.0, 3.0, 3.0)

    def test_patterns_count_every_pattern_of_a_group(self) -> None:
        found = report()
        row = found.row(ONNX, 16)
        assert row is not None
        assert found.patterns_per_s(row) == 16 * 4 / 0.5

    def test_share_of_the_limit(self) -> None:
        assert report().limit_share(ONNX, 16) == pytest.approx(16e9 / 0.5 / 40e9)

    def test_targets_say_what_is_reached(self) -> None:
        verdicts = [(target.found, target.verdict) for target in report().targets()]
        expected = [
            (4.0, "reached"), (1.6, "not reached"), (0.8, "reached"), (None, "not measured"),
            (45.0, "reached"), (0.15, "reached"),
        ]  # fmt: skip
        assert [verdict for _, verdict in verdicts] == [verdict for _, verdict in expected]
        assert [found for found, _ in verdicts] == pytest.approx([found for found, _ in expected])

    def test_stored_variants_and_the_centre_are_held_against_the_same_graph_in_float32(self) -> None:
        rows = [
            Row(ONNX, "cpu", 16, Turns([0.1, 0.1, 0.1])),
            Row("ONNX centre float32", "cpu", 16, Turns([0.08, 0.08, 0.08])),
            Row("OpenVINO bfloat16", "cpu", 16, Turns([0.02, 0.02, 0.02])),  # keeps no budget
            Row("stored variant reduced", "cpu", 16, Turns([0.05, 0.05, 0.05])),
            Row("stored variant centre reduced", "cpu", 16, Turns([0.032, 0.032, 0.032])),
        ]
        targets = {target.text.split(",")[0]: target for target in report(rows=rows, centre_leaves_out=True).targets()}
        assert targets["centre over the whole patches"].found == pytest.approx(1.25)
        assert targets["stored variant"].found == pytest.approx(2.5)

    def test_centre_has_no_goal_where_it_leaves_no_convolution_out(self) -> None:
        assert not [target for target in report().targets() if "centre" in target.text]

    def test_share_of_the_limit_counts_what_the_centre_computes(self) -> None:
        found = report(rows=[Row("ONNX centre float32", "cpu", 16, Turns([0.1]))], centre_multiply_adds=500)
        assert found.limit_share("ONNX centre float32", 16) == pytest.approx(500 * 16 / 0.1 / found.limits["cpu"])

    def test_target_without_its_batch_is_not_measured(self) -> None:
        assert [target.verdict for target in report(rows=[], costs=[]).targets()] == ["not measured"] * 4 + [
            "reached",
            "not measured",
        ]

    def test_every_absence_is_listed_once_with_its_reason(self) -> None:
        assert report().missing() == [
            (OPENVINO, "cpu", "OpenVINO is not installed"),
            (EAGER, "cuda", "no CUDA device"),
        ]

    def test_json_round_trip(self) -> None:
        text = report().to_json()
        assert BenchReport.from_json(text) == report()
        document = json.loads(text)
        assert (document["schema"], document["schema_version"]) == ("ptycho-export/bench", 1)
        assert {"contender": ONNX, "device": "cpu", "batch": 16, "median": 4.0, "low": 3.0, "high": 6.0} in document[
            "over_eager"
        ]

    def test_other_schema_is_refused(self) -> None:
        with pytest.raises(ValueError, match="expected \\('ptycho-export/bench', 1\\)"):
            BenchReport.from_json('{"schema": "ptycho-export/parity", "schema_version": 1}')

    def test_markdown_holds_ratios_reasons_and_layers(self) -> None:
        text = to_markdown(report())
        for line in (
            "| ONNX float32 over eager, batch 16 | ≥ 2.5 | 4.00 | reached |",
            "| ONNX float32 | 4.00 (3.00–6.00) |",
            "| ONNX float32 | 80% |",
            "| ONNX float32 | 0.15 | 0.20 | 1.10 | 1.0e-06 | 2.0e-06 | 3.0e-06 |",
            "| ONNX float32 | 500.0 (0.0), 128/s |",
            "| network.conv | Conv | 3×3, 4 → 8 channels | 75.0% | 50.0% | 53% |",
            "| layout | ReorderInput | – | 20.0% | 0.0% | – |",
            "| OpenVINO float32 | cpu | OpenVINO is not installed |",
        ):
            assert line in text.splitlines()

    def test_ratios_come_before_absolute_numbers(self) -> None:
        titles = [sheet.title for sheet in sheets(report())]
        assert titles[0].startswith("Targets (ratios)")
        assert titles[1].startswith("Times as fast as eager")

    def test_terminal_tables_keep_every_cell_of_eighty_columns(self) -> None:
        console = Console(width=80, record=True, file=io.StringIO())
        for sheet in sheets(report()):
            console.print(sheet.terminal())
        assert "4.00 (3.00–6.00)" in console.export_text()

    def test_remarks_say_what_disturbed_and_how_loading_compares(self) -> None:
        lines = remarks(report())
        assert lines[0].startswith("cpu: other processes took 5% of the cores in the median round, 30% at most; 2 of 3")
        assert lines[1] == (
            "read_bundle takes 2.00 × the time of unzipping the weights and torch.load(weights_only=True); "
            "peak memory 1.50 × the weights' bytes against 2.00 ×"
        )

    def test_what_keeps_it_from_the_limit_is_said(self) -> None:
        assert (
            "ONNX float32 multiplies at 80% of the limit on cpu: 20% of the time goes into nodes without products "
            "(ReorderInput 20%), the rest runs at 100% of the limit; below 80% of it, by time: "
            "network.conv (3×3, 4 → 8 channels)"
        ) in remarks(report())
        assert not any("of the limit on" in line for line in remarks(report(layers=[])))

    def test_picture_is_a_png_even_of_nothing(self) -> None:
        for found in (report(), report(rows=[], costs=[])):
            assert plot_png(found).startswith(b"\x89PNG")


class TestProfile:
    def test_fused_node_is_called_after_the_layer_with_the_weights(self) -> None:
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["c"], "node_conv"),
            helper.make_node("Relu", ["c"], ["relu"], "node_relu"),
            helper.make_node("Sigmoid", ["relu"], ["y"], "node_sigmoid"),
        ]
        for node, scopes in zip(nodes, (["", "net", "net.conv", "c"], ["", "net", "r"], ["", "s"]), strict=True):
            node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(scopes))
        found = layer_times(
            graph(nodes, [1, 1, 4, 4], weights("w", 1, 1, 3, 3)),
            {
                "relu_nchwc_kernel_time": ("Conv", 6.0),
                "node_sigmoid_kernel_time": ("Sigmoid", 3.0),
                "ReorderOutput_1_kernel_time": ("ReorderOutput", 1.0),
            },
            {"node_conv": 36},
        )
        assert found == [
            LayerTime("net.conv", "Conv", 0.6, 1.0, "3×3, 1 → 1 channels"),
            LayerTime("node_sigmoid", "Sigmoid", 0.3, 0.0),
            LayerTime("layout", "ReorderOutput", 0.1, 0.0),
        ]


class TestDisturbance:
    def test_idle_and_guest_time_are_no_work(self) -> None:
        ticks = busy_s("cpu  100 20 30 4000 500 6 7 8 900 900\ncpu0 1 2 3\n")
        again = busy_s("cpu  200 20 30 9000 900 6 7 8 999 999\n")
        assert ticks is not None and again is not None
        assert again - ticks == pytest.approx(100 / os.sysconf("SC_CLK_TCK"))

    @pytest.mark.parametrize(
        ("others_s", "cores", "expected"), [(0.0, 2, 0.0), (1.0, 2, 0.5), (1.0, 8, 0.0), (8.0, 8, 1.0), (9.0, 2, 1.0)]
    )
    def test_only_what_does_not_fit_on_idle_cores_disturbs(self, others_s: float, cores: int, expected: float) -> None:
        assert disturbance(others_s, 1.0, 2, cores) == expected


class FakeChild:
    """Answers like a contender's process, at a tenth of a second a call."""

    def __init__(self, log: list[str], name: str, fails_at: int | None = None) -> None:
        self.log, self.name, self.fails_at, self.turns = log, name, fails_at, 0

    def ask(self, **order: object) -> dict[str, float]:
        self.turns += 1
        if self.turns == self.fails_at:
            raise CannotRun("out of memory")
        self.log.append(self.name)
        calls = order["calls"]
        assert isinstance(calls, int)
        return {"seconds": 0.1 * calls, "idle_cpu_s": 0.0, "idle_s": 1.0, "cpu_s": 99.0, "peak_bytes": 7}

    def close(self) -> None:
        self.log.append(f"{self.name} closed")


class TestRace:
    def test_contenders_take_turns_in_alternating_order(self) -> None:
        log: list[str] = []
        children = {name: FakeChild(log, name) for name in "ab"}
        found, disturbed = race(children, 4, 2, 2)  # type: ignore[arg-type]  # only ask and close are used
        assert log == ["a", "a", "b", "b", *"ab", *"ba"]
        assert found["a"] == Turns([0.1, 0.1], 1, 0.0, 7)
        assert disturbed == [0.0, 0.0]

    def test_contender_that_fails_leaves_and_the_others_go_on(self) -> None:
        log: list[str] = []
        children = {"a": FakeChild(log, "a", fails_at=3), "b": FakeChild(log, "b")}
        found, _ = race(children, 4, 2, 2)  # type: ignore[arg-type]
        assert found["a"] == Turns(reason="out of memory")
        assert len(found["b"].seconds) == 2
        assert "a closed" in log and list(children) == ["b"]


def dead(case: Case, device: str, threads: int) -> FakeChild:
    raise AssertionError("is never opened here")


def test_every_exact_rewrite_has_a_contender_without_it() -> None:
    names = ["ONNX without rewrites", *(f"ONNX without {name}" for name in REWRITES)]
    assert [contender.name for contender in REWRITTEN] == names


class TestChild:
    def test_death_is_told_with_its_last_message(self, tmp_path: Path) -> None:
        contender = Contender("nobody", "float32", dead, "onnx")  # type: ignore[arg-type]
        Case("b", None, {}, {}, {}, "t", [], []).write(tmp_path / "case.json")
        with (
            Child(Arena(tmp_path / "case.json", tmp_path / "feed.npz", 1), contender, "cpu") as child,
            pytest.raises(CannotRun, match=r"^its process ended with code 1: StopIteration"),
        ):
            child.ask(do="open")

    def test_variant_that_the_bundle_lacks_is_a_reason(self, tmp_path: Path) -> None:
        contender = next(found for found in CONTENDERS if found.key == "stored variant reduced")
        Case("b", None, {}, {}, {}, "t", [], []).write(tmp_path / "case.json")
        with (
            Child(Arena(tmp_path / "case.json", tmp_path / "feed.npz", 1), contender, "cpu") as child,
            pytest.raises(CannotRun, match=r"^the bundle holds no such variant$"),
        ):
            child.ask(do="open")


needs_no_gpu = pytest.mark.skipif(not why_not("cuda"), reason="this host has a GPU")


class TestGpuContenders:
    """On the CPU, with host memory in the place of a GPU's; what a GPU gains is not to be seen here."""

    @pytest.fixture
    def case(self, tmp_path: Path) -> Case:
        model = graph([helper.make_node("Relu", ["x"], ["y"])], ["batch", 3], output_shape=["batch", 3])
        (tmp_path / "model.onnx").write_bytes(model)
        files = dict.fromkeys((WHOLE, VARIANT_GPU), str(tmp_path / "model.onnx"))
        return Case("b", None, {}, files, {}, "t", ["x"], ["y"])

    @pytest.mark.parametrize("kind", [BoundEngine, CopyingEngine])
    def test_answers_to_new_numbers_of_a_batch_size_it_knows(self, kind: type[CopyingEngine], case: Case) -> None:
        engine = kind(case, "cpu", 1)
        for groups in (1, 4):
            for seed in (0, 1):
                x = np.random.default_rng(seed).standard_normal((groups, 3)).astype(np.float32)
                found = engine.arrays(engine.prepare({contract.DIFFRACTION: x, "x": x})())
                np.testing.assert_array_equal(found["y"], np.maximum(x, 0.0))

    def test_buffers_of_a_batch_size_stay_until_another_comes_and_so_does_its_session(self, case: Case) -> None:
        engine = BoundEngine(case, "cpu", 1)
        used, sessions = [], []
        for groups in (2, 2, 5):
            used.append(engine.prepare({"x": np.zeros((groups, 3), np.float32)})())
            sessions.append(engine.opened)
        assert used[0] is used[1] and used[0] is not used[2]
        assert sessions[0] is sessions[1]
        with pytest.raises(ReconstructionError, match="closed"):
            sessions[0].run({"x": np.zeros((2, 3), np.float32)})

    def test_tf32_that_the_environment_forbids_is_no_tf32_row(
        self, case: Case, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
        with pytest.raises(CannotRun, match=r"^NVIDIA_TF32_OVERRIDE=0 in the environment forbids TF32$"):
            find("ONNX tf32").open(case, "cuda", 1)

    @needs_no_gpu
    @pytest.mark.parametrize(
        "key",
        [
            "ONNX float32",
            "ONNX tf32",
            "ONNX with copies float32",
            "ONNX CUDA graph float32",
            "ONNX CUDA graph tf32",
            "stored variant float16",
            "stored variant CUDA graph float16",
            "ONNX TensorRT float32",
        ],
    )
    def test_without_a_gpu_it_says_so_and_runs_nowhere_else(self, key: str, case: Case) -> None:
        with pytest.raises(CannotRun, match=r"cannot be used: no NVIDIA driver is loaded"):
            find(key).open(case, "cuda", 1)

    def test_process_may_round_only_where_its_name_says_so_and_finds_no_engine(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
        float32, tf32 = (
            child_environment(1, find(f"ONNX TensorRT {name}"), "/scratch") for name in ("float32", "tf32")
        )
        assert float32["NVIDIA_TF32_OVERRIDE"] == "0" and "NVIDIA_TF32_OVERRIDE" not in tf32
        assert float32["XDG_CACHE_HOME"] == "/scratch"


def test_only_names_a_known_contender() -> None:
    result = CliRunner().invoke(cli, ["bench", "x.zip", "--only", "Caffe"])
    assert result.exit_code == 2
    assert "'Caffe'; expected one of eager, torch.compile, TorchScript" in result.output


@pytest.mark.long
def test_bench_of_an_exported_bundle(exported: Callable[[str], ExportResult], tmp_path: Path) -> None:
    bundle = exported("cnn-2026-02-n64-g1").bundle
    options = ["--batches", "1", "--rounds", "1", "--out", str(tmp_path)]
    options += ["--only", "eager", "--only", "ONNX", "--only", "stored variant"]
    result = CliRunner().invoke(cli, ["bench", str(bundle), *options])
    assert result.exit_code == 0, result.output
    found = BenchReport.from_json((tmp_path / "bench.json").read_text(encoding="utf-8"))
    ratio = found.ratio(ONNX, 1)
    assert ratio is not None and ratio.median > 0.0
    cost = found.cost(ONNX)
    assert cost is not None and cost.accuracy["rel_l2"] < 1e-4 and len(cost.cold_s) == 3
    assert ("stored variant reduced", "cpu", "the bundle holds no such variant") in found.missing()
    assert found.layers and found.loading is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bench.json", "bench.md", "bench.png"]


def test_compiling_has_to_be_asked_for() -> None:
    def names(**chosen: object) -> set[str]:
        return {contender.name for contender in chosen_contenders(BenchOptions(**chosen))}  # type: ignore[arg-type]

    every = {contender.name for contender in CONTENDERS}
    assert names() == every - {COMPILED}
    assert names(compile=True) == every
    assert names(only=[COMPILED]) == {COMPILED}


def test_each_step_says_which_it_is_and_how_long_the_rest_takes() -> None:
    said: list[str] = []
    steps = Steps(BenchOptions(progress=said.append), 3)
    steps.begin("opening ONNX float32 on cpu")
    steps.begin("batch 1 on cpu")
    assert said[0] == "opening ONNX float32 on cpu (1 of 3)"
    assert said[1].startswith("batch 1 on cpu (2 of 3, about ")


def test_what_was_measured_before_a_stop_is_kept() -> None:
    stopped = report()
    measured = len(stopped.rows)
    stopped.costs.clear()
    assert keep_what_is_there(stopped)
    assert len(stopped.rows) == measured
    assert {cost.reason for cost in stopped.costs} == {STOPPED}
    assert STOPPED in to_markdown(stopped)
    assert plot_png(stopped).startswith(b"\x89PNG")
    empty = report()
    empty.rows.clear()
    assert not keep_what_is_there(empty)


def test_quick_takes_less_of_everything_that_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    def run(bundle: str, out: Path | None, **chosen: object) -> None:
        seen.update(chosen)
        raise ExportError("enough")

    monkeypatch.setattr("exporters.bench.run.run_bench", run)
    CliRunner().invoke(cli, ["bench", "x", "--quick"])
    assert (seen["batches"], seen["rounds"], seen["cold_starts"]) == ((1, 16), 3, 1)
    CliRunner().invoke(cli, ["bench", "x", "--quick", "--rounds", "5"])
    assert (seen["batches"], seen["rounds"]) == ((1, 16), 5)
    CliRunner().invoke(cli, ["bench", "x"])
    assert (seen["batches"], seen["rounds"]) == ((1, 4, 16, 64), 7)
