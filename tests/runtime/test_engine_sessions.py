"""The contract of sessions, on the CPU: what they take, how they split it, what they say of themselves, and that they end."""

from __future__ import annotations

import importlib.util
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from proven_layer import tuned_for

import ptycho_runtime
from ptycho_runtime import DamagedExportError, ReconstructionError, RunOptions, contract, open_export
from ptycho_runtime.engine import hardware
from ptycho_runtime.engine.gpu import GpuSession
from ptycho_runtime.engine.opening import open_session
from ptycho_runtime.engine.openvino import OpenVinoSession
from ptycho_runtime.engine.session import Session
from ptycho_runtime.engine.tuned import Setting

GRAPH = "diffraction_to_obj"
needs_openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")


def feed_of(groups: int) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).random((groups, 1, 64, 64), dtype=np.float32)
    return {contract.DIFFRACTION: x, contract.INPUT_SCALE: np.ones((groups, 1, 1, 1), np.float32)}


def whole(model: bytes) -> Session:
    return open_session(model, RunOptions("cpu"), whole=True)


def split(model: bytes) -> Session:
    return open_session(model, RunOptions("cpu"))


def bound(model: bytes) -> Session:
    """Return what runs on a GPU, with host memory in place of a GPU's."""
    return GpuSession(open_session(model, RunOptions("cpu")).session, RunOptions("cuda", 4), memory="cpu")


def openvino(model: bytes) -> Session:
    return OpenVinoSession(model, RunOptions("cpu"))


@pytest.fixture(
    params=[whole, split, bound, pytest.param(openvino, marks=needs_openvino)], ids=lambda kind: kind.__name__
)
def session(request: pytest.FixtureRequest, tiny: Path) -> Session:
    found: Session = request.param(open_export(tiny).graphs[GRAPH])
    return found


class TestContract:
    @pytest.mark.parametrize(
        ("name", "change", "message"),
        [
            (contract.DIFFRACTION, np.float64, r"^diffraction is float64 of shape \(4, 1, 64, 64\); the graph takes tensor\(float\)"),
            (contract.DIFFRACTION, lambda x: x.reshape(4, 1, 32, 128), r"of shape \(4, 1, 32, 128\); the graph takes tensor"),
            (contract.DIFFRACTION, lambda x: x.reshape(4, 64, 64), r"of shape \(4, 64, 64\); the graph takes tensor"),
            (contract.DIFFRACTION, lambda x: x[:0], r"'diffraction': 0, 'input_scale_factor': 4}; expected as many in each, and one"),
            (contract.INPUT_SCALE, lambda x: x[:1], r"^groups by input: {'diffraction': 4, 'input_scale_factor': 1}; expected as"),
        ],
    )  # fmt: skip
    def test_arrays_that_the_graph_does_not_take_are_refused(
        self, session: Session, name: str, change: Callable[[np.ndarray], np.ndarray], message: str
    ) -> None:
        feed = feed_of(4)
        feed[name] = change(feed[name])
        with session, pytest.raises(ReconstructionError, match=message):
            session.run(feed)

    def test_a_feed_that_lacks_an_input_is_refused(self, session: Session) -> None:
        expected = r"^the feed lacks input_scale_factor; the graph takes diffraction, input_scale_factor$"
        with session, pytest.raises(ReconstructionError, match=expected):
            session.run({contract.DIFFRACTION: feed_of(1)[contract.DIFFRACTION]})

    def test_other_arrays_in_the_feed_are_passed_over(self, session: Session) -> None:
        with session:
            found = session.run({**feed_of(3), contract.EXPERIMENT_ID: np.zeros(7, np.int64)})
        assert {name: value.shape for name, value in found.items()} == dict.fromkeys(session.outputs, (3, 1, 64, 64))

    def test_a_closed_session_says_so_and_its_threads_have_ended(self, session: Session) -> None:
        before = set(threading.enumerate())
        with session:
            session.warmup()
            session.run(feed_of(7))
        session.close()
        assert set(threading.enumerate()) <= before
        with pytest.raises(ReconstructionError, match=f"^this {session.engine} session is closed; open another one$"):
            session.run(feed_of(1))

    def test_threads_that_work_are_said(self, session: Session) -> None:
        with session:
            assert session.options.threads is None or session.options.threads <= hardware.usable_threads()


class Watched:
    """Notes which sessions are opened, and how many groups each runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[Any] = []
        self.runs: list[tuple[int, int]] = []
        watched, real = self, onnxruntime.InferenceSession

        class Noting(real):  # type: ignore[misc, valid-type]
            def __init__(self, model: bytes, told: Any, **options: Any) -> None:
                super().__init__(model, told, **options)
                watched.opened.append(self)

            def run(self, outputs: Any, feed: Any, *rest: Any) -> Any:
                threads = self.get_session_options().intra_op_num_threads
                watched.runs.append((threads, len(feed[contract.DIFFRACTION])))
                return super().run(outputs, feed, *rest)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Noting)


@pytest.mark.parametrize(("groups", "sizes"), [(7, [2, 2, 3]), (3, [1, 1, 1]), (2, [2]), (1, [1])])
def test_groups_are_split_among_threads_and_come_back_in_order(
    tiny: Path, groups: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(hardware, "cgroup_cpus", lambda: math.inf)
    watched = Watched(monkeypatch)
    model = open_export(tiny).graphs[GRAPH]
    feed = feed_of(groups)
    with open_session(model, RunOptions("cpu", threads=3)) as session:
        found = session.run(feed)
    assert sorted(watched.runs) == [(1 if groups >= 3 else 3, size) for size in sizes]
    with open_session(model, RunOptions("cpu", threads=1)) as alone:
        for number in range(groups):
            wanted = alone.run({key: value[number : number + 1] for key, value in feed.items()})
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name][number : number + 1], value, rtol=0, atol=1e-5)


def test_threads_of_a_session_that_waits_leave_the_cores_to_others(tiny: Path) -> None:
    with open_session(open_export(tiny).graphs["autoencoder"], RunOptions("cpu")) as session:
        told = session.session.get_session_options()
        assert told.get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_graph_that_the_cpu_refuses_is_a_damaged_export() -> None:
    onnx = pytest.importorskip("onnx")
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", 1]) for name in "xy")
    # There is no sigmoid of whole numbers.
    graph = onnx.helper.make_graph([onnx.helper.make_node("Sigmoid", ["x"], ["y"])], "wrong", [x], [y])
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10).SerializeToString()
    with pytest.raises(DamagedExportError, match=r"^onnxruntime refuses the graph: .*; export the bundle again$"):
        open_session(model, RunOptions("cpu"))


class TestFacts:
    def test_providers_and_version_are_read_back(self, tiny: Path) -> None:
        with open_session(open_export(tiny).graphs[GRAPH], RunOptions("cpu")) as session:
            assert session.facts() == {
                "onnxruntime": onnxruntime.__version__,
                "providers": ["CPUExecutionProvider"],
            }

    def test_a_profile_says_which_provider_ran_each_node_and_leaves_no_file(
        self, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with open_session(open_export(tiny).graphs[GRAPH], RunOptions("cpu"), profile=True) as session:
            session.run(feed_of(2))
            counts = session.facts()["node_providers"]
            assert list(counts) == ["CPUExecutionProvider"]
            assert counts["CPUExecutionProvider"] == len(session.node_runs()) > 10
            assert {"Conv"} < {run.operator for run in session.node_runs()}
        assert list(tmp_path.iterdir()) == []

    def test_a_profile_that_was_not_asked_for_is_an_error(self, tiny: Path) -> None:
        with (
            open_session(open_export(tiny).graphs[GRAPH], RunOptions("cpu")) as session,
            pytest.raises(ValueError, match="without a profile"),
        ):
            session.node_runs()

    @needs_openvino
    def test_openvino_says_what_it_computes_in(self, tiny: Path) -> None:
        with OpenVinoSession(open_export(tiny).graphs[GRAPH], RunOptions("cpu", threads=1)) as session:
            facts = session.facts()
        assert (facts["devices"], facts["precision"], facts["threads"]) == (["CPU"], "f32", 1)


class TestReconstructor:
    def test_a_tuned_host_opens_one_session(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tuned_for(open_export(tiny), (Setting(5, 1), 10.0))
        watched = Watched(monkeypatch)
        with ptycho_runtime.open(tiny, device="cpu") as model:
            assert (model.batch, model.options.threads) == (5, 1)
        assert len(watched.opened) == 1

    def test_closing_ends_every_session_and_what_is_asked_for_after_it(self, demo: Path) -> None:
        before = set(threading.enumerate())
        with ptycho_runtime.open(demo, device="cpu") as model:
            model.predict(np.ones((16, 64, 64), np.float32))
            centre = model.centre
            assert centre is not None
            centre.warmup()
        model.close()
        assert set(threading.enumerate()) <= before
        for session in (model.patches, centre):
            with pytest.raises(ReconstructionError, match="session is closed"):
                session.run(feed_of(1))
        with pytest.raises(ReconstructionError, match=f"^{demo.name} is closed; open it again$"):
            assert model.autoencoder

    def test_options_and_keywords_mean_the_same(self, tiny: Path) -> None:
        options = RunOptions("cpu", 3, 1, precision="auto", engine="onnxruntime")
        for model in (
            ptycho_runtime.open(tiny, options),
            ptycho_runtime.open(tiny, "cpu", batch=3, threads=1, precision="auto"),
            ptycho_runtime.open(tiny, device="cpu", batch=3, threads=1, tf32=False, cuda_graph=False, precision="auto"),
            ptycho_runtime.open(tiny, RunOptions("cpu", 9, 1), batch=3, precision="auto"),
        ):
            with model:
                assert model.options == options

    def test_a_keyword_that_is_none_of_the_options_is_an_error(self, tiny: Path) -> None:
        with pytest.raises(TypeError, match="batch_size"):
            ptycho_runtime.open(tiny, batch_size=3)  # type: ignore[call-arg]
