"""Reports and exports are looked at where nothing can run a model: the heavy packages cannot be imported here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sample_bundles import DEMO

from exporters.parity.report import ParityReport
from exporters.parity.rows import ParityRow

if TYPE_CHECKING:
    from exporters import ExportResult

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "onnx", "onnxruntime", "onnxscript", "onnx_ir", "openvino", "h5py", "matplotlib", "skimage")
LIGHT = (
    "exporters",
    "exporters.cli.main",
    "exporters.errors",
    "exporters.inspect.audit",
    "exporters.inspect.bundle",
    "exporters.parity",
    "exporters.parity.forms.html",
    "exporters.parity.forms.junit",
    "exporters.parity.forms.markdown",
    "exporters.parity.forms.reading",
    "exporters.parity.forms.terminal",
    "exporters.parity.report",
    "exporters.options",
    "exporters.parity.rows",
    "exporters.preflight",
    "exporters.stored.places",
    "ptycho_runtime.export.bundle",
    "ptycho_runtime.export.record",
)
BLOCK = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError("blocked: " + name)
sys.meta_path.insert(0, Blocked())
"""


def lightly(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that cannot import what is heavy."""
    return subprocess.run([sys.executable, "-c", BLOCK + code], capture_output=True, text=True, cwd=ROOT, check=False)


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `ptycho-export` there."""
    words = [str(argument) for argument in arguments]
    return lightly(f"from exporters.cli.main import main; sys.argv[1:] = {words!r}; main()")


def report(max_abs: float, rule: str = "error ≤ 4 × eager float32's own") -> ParityReport:
    """Return a report of one graph in both formats."""
    figures = {
        "max_abs": max_abs,
        "rel_l2": 1e-8,
        "allowed_max_abs": 1e-6,
        "allowed_rel_l2": 1e-7,
        "share": max_abs / 1e-6,
    }
    rows = [
        ParityRow(
            "autoencoder", runtime, "cpu", "float32", 1, "simulated", "passed", outputs={"amplitude": dict(figures)}
        )
        for runtime in ("torchscript", "onnx")
    ]
    return ParityReport("demo", rows, planned=tuple(row.cell for row in rows), rule=rule)


def test_each_light_module_imports_without_what_is_heavy() -> None:
    done = lightly("import importlib\n" + "".join(f"importlib.import_module({name!r})\n" for name in LIGHT))
    assert done.returncode == 0, done.stderr


def test_rows_import_the_standard_library_alone() -> None:
    code = "import sys; import exporters.parity.rows; print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'rich', 'click'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_compare_runs_lightly(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(report(1e-7).to_json())
    (tmp_path / "b.json").write_text(report(5e-7).to_json())
    done = command("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert done.returncode == 0, done.stderr
    assert "autoencoder onnx cpu float32 batch 1: amplitude max_abs 1.0e-07 → 5.0e-07" in done.stdout


def test_compare_can_end_with_three_where_something_changed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(report(1e-7).to_json())
    (tmp_path / "b.json").write_text(report(5e-7).to_json())
    assert command("compare", "--fail-on-change", tmp_path / "a.json", tmp_path / "b.json").returncode == 3
    assert command("compare", "--fail-on-change", tmp_path / "a.json", tmp_path / "a.json").returncode == 0


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"max_abs": 1e-30, "rel_l2": 1e-30}, "says its error is 0.1 of what is allowed; its figures say 1e-23"),
        ({"share": 0.01}, "says its error is 0.01 of what is allowed; its figures say 0.1"),
        (
            {"allowed_max_abs": 1e9, "allowed_rel_l2": 1e9, "max_abs": 1e3, "rel_l2": 1e3, "share": 1e-6},
            "allows a relative error of 1e+09, which proves nothing",
        ),
    ],
)
def test_a_report_whose_figures_do_not_belong_together_is_refused(
    figures: dict[str, float], message: str, tmp_path: Path
) -> None:
    forged = report(1e-7)
    forged.rows[1].outputs["amplitude"] |= figures
    (tmp_path / "a.json").write_text(report(1e-7).to_json())
    (tmp_path / "b.json").write_text(forged.to_json())
    done = command("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert done.returncode == 2
    assert message in done.stderr


def test_a_report_is_written_in_all_forms_lightly(tmp_path: Path) -> None:
    (tmp_path / "parity.json").write_text(report(1e-7, "the rule of that day").to_json())
    done = lightly(
        "from pathlib import Path\n"
        "from exporters.parity.forms import html, junit, markdown, reading, terminal\n"
        f"report = reading.read_report(Path({str(tmp_path / 'parity.json')!r}))\n"
        "assert 'the rule of that day' in html.to_html(report)\n"
        "assert 'onnx cpu float32 batch 1' in junit.to_junit(report)\n"
        "assert 'autoencoder' in markdown.to_markdown(report)\n"
        "assert terminal.matrix_table(report).row_count == 3\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--scan", "none.npz"], 2, "none.npz: no such scan"),
        (["--budget", "phase=9rad,amp=1%"], 2, "allows another object; expected phase 0.1 rad, amplitude 10 % at most"),
        (["--precision", "int8"], 2, "needs a budget and a scan"),
        (["--exclude", "x"], 2, "'x' is no frame number"),
    ],
)
def test_what_can_be_known_before_is_said_before_pytorch_is_imported(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = command("export", DEMO, "--out", tmp_path / "out", *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr


def test_inspect_of_an_export_runs_lightly(exported: Callable[[str], ExportResult]) -> None:
    pytest.importorskip("torch")
    bundle = exported("cnn-2026-07-n64-g2").bundle
    done = command("inspect", bundle, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exports"]["parity"] == "passed"
