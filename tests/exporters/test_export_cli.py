"""The command line: one line per error, exit codes a script can use."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sample_bundles import BUNDLES, DEMO, ROOT, bundle_path, changed
from shared_exports import TINY, tiny_bundle, traced_before
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from click.testing import CliRunner, Result  # noqa: E402

from exporters import ExportResult, pipeline  # noqa: E402
from exporters.cli import options  # noqa: E402
from exporters.cli.main import cli  # noqa: E402

Exported = Callable[[str], ExportResult]
SMALL = bundle_path("ffno-2026-07-n64-g1")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in arguments], catch_exceptions=False)


def last_line(result: Result) -> str:
    return result.stderr.strip().splitlines()[-1]


class TestExport:
    def test_one_bundle(self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "trace_family", traced_before(exported(TINY)))
        source, out = tiny_bundle(tmp_path / "run"), tmp_path / "out"
        result = run("export", source, "--out", out, "--batches", "1", "--triton", tmp_path / "models")
        assert result.exit_code == 0, result.output
        assert (out / source.name).is_file()
        assert (tmp_path / "models" / "diffraction_to_obj" / "1" / "model.onnx").is_file()
        assert f"Triton: {tmp_path}/models/diffraction_to_obj: version 1 (not run under Triton)" in result.stdout
        assert f"stored: {out / source.name}" in result.stdout
        assert "parity passed" in result.stdout
        assert "ONNX" in result.stderr, "progress is told"

    @pytest.mark.usefixtures("without_pictures")
    def test_several_bundles_one_of_them_bad(
        self, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pipeline, "trace_family", traced_before(exported(TINY)))
        source = tmp_path / "in"
        tiny_bundle(source).rename(source / "good.zip")
        (source / "bad.zip").write_bytes(b"nothing")
        result = run("export", source / "*.zip", "--out", tmp_path / "out", "--batches", "1")
        assert result.exit_code == 2
        assert (tmp_path / "out" / "good" / "good.zip").is_file()
        assert not (tmp_path / "out" / "bad").exists()
        assert "not a zip archive" in result.stderr
        assert "Exports" in result.stdout

    def test_absent_file(self, tmp_path: Path) -> None:
        result = run("export", tmp_path / "none.zip")
        assert result.exit_code == 2
        assert "no such bundle" in last_line(result)

    def test_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        result = run("export", SMALL, "--out", tmp_path / "file" / "x")
        assert result.exit_code == 2
        assert "cannot be written" in last_line(result)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
    def test_required_device_that_is_absent(self, tmp_path: Path) -> None:
        result = run(
            "export", tiny_bundle(tmp_path / "run"), "--out", tmp_path / "out", "--batches", "1", "--require", "cuda"
        )
        assert result.exit_code == 4
        assert "required device cannot be used (cuda: no NVIDIA driver is loaded" in last_line(result)
        assert not (tmp_path / "out").exists()

    def test_batches_that_are_no_numbers(self) -> None:
        result = run("export", SMALL, "--batches", "1,x")
        assert result.exit_code == 2
        assert "expected whole numbers from 1 to 4096" in result.stderr


@pytest.mark.usefixtures("without_pictures")
class TestVerify:
    def test_flipped_weight_ends_with_three(self, exported: Exported, tmp_path: Path) -> None:
        bundle = exported(TINY).bundle
        name = "diffraction_to_obj/model.onnx"
        bad = changed(
            bundle,
            tmp_path / "w.zip",
            {name: with_flipped_weight((exported(TINY).folder / name).read_bytes())},
        )
        result = run("verify", bad, "--batches", "1", "--report", tmp_path / "report")
        assert result.exit_code == 3
        assert re.search(
            r"parity failed: diffraction_to_obj onnx( by layer)? on cpu, batch \d+: (object|network)", last_line(result)
        )
        assert last_line(result).endswith(f"the report is in {tmp_path / 'report'}")
        report = json.loads((tmp_path / "report" / "parity.json").read_text())
        assert report["verdict"] == "failed"
        rows = [row for row in report["rows"] if (row["graph"], row["runtime"]) == ("diffraction_to_obj", "onnx")]
        on_cpu = {row["batch"]: row["verdict"] for row in rows if row["device"] == "cpu"}
        assert {1, 5} < set(on_cpu)
        assert set(on_cpu.values()) == {"failed"}

    def test_good_bundle(self, exported: Exported) -> None:
        assert run("verify", exported(TINY).bundle, "--batches", "1").exit_code == 0

    def test_bundle_without_exports(self) -> None:
        result = run("verify", DEMO)
        assert result.exit_code == 2
        assert "holds no exports" in last_line(result)


class TestInspect:
    def test_json(self) -> None:
        found = json.loads(run("inspect", DEMO, "--json").stdout)
        spec = found["architecture"]
        assert (spec["era"], spec["generator"], spec["N"], spec["gridsize"]) == ("J", "cnn", 64, 1)
        assert found["sentinels"] == ["autoencoder"]
        assert found["exports"] is None
        assert found["reference"].startswith("this project's rebuild of PtychoPINN's models, not PtychoPINN itself")
        assert found["evidence"]["N"] == {"value": 64, "source": "weights", "note": "3 encoder blocks"}
        assert {m["name"] for m in found["members"]} >= {"manifest.dill", "diffraction_to_obj/model.pth"}

    @pytest.mark.parametrize("name", ["cnn-2026-07-n64-g2", "ffno-2026-07-n64-g1"])
    def test_parameter_count_is_the_models(self, name: str) -> None:
        from ptycho_torch import load_torch_bundle

        model = load_torch_bundle(bundle_path(name), "diffraction_to_obj")[0]["diffraction_to_obj"]
        found = json.loads(run("inspect", bundle_path(name), "--json").stdout)
        assert found["parameter_count"] == sum(p.numel() for p in model.parameters())

    def test_exports_and_their_verdict(self, exported: Exported) -> None:
        found = json.loads(run("inspect", exported(TINY).bundle, "--json").stdout)
        assert found["exports"]["parity"] == "passed"
        assert found["exports"]["current"] is True
        assert found["exports"]["graphs"] == ["autoencoder", "diffraction_to_obj"]

    def test_text_names_the_essentials(self) -> None:
        text = run("inspect", BUNDLES / "cnn-2025-11-n64-g2.zip").stdout
        for word in (
            "2025-11",
            "cnn",
            "64 px",
            "sentinel",
            "assumed",
            "diffraction_to_obj/model.pth",
            "nphotons",
            "exports",
            "parity's reference",
        ):
            assert word in text, word

    def test_written_architecture_is_taken_back(self, tmp_path: Path) -> None:
        assert run("inspect", DEMO, "--write-architecture", tmp_path / "a.json").exit_code == 0
        found = json.loads(run("inspect", DEMO, "--json", "--architecture", tmp_path / "a.json").stdout)
        assert found["architecture"] == json.loads((tmp_path / "a.json").read_text())
        assert found["evidence"]["era"]["source"] == "override"

    def test_contradiction_is_told_and_ends_with_two(self, tmp_path: Path) -> None:
        (tmp_path / "a.json").write_text('{"N": 128}')
        result = run("inspect", DEMO, "--architecture", tmp_path / "a.json")
        assert result.exit_code == 2
        assert "128" in last_line(result)

    def test_works_without_pytorch(self) -> None:
        code = f"import sys; sys.modules['torch'] = None; from exporters.cli.main import cli; cli(['inspect', {str(DEMO)!r}])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert "586,794" in done.stdout

    def test_export_without_pytorch_tells_how_to_install_it(self, tmp_path: Path) -> None:
        arguments = ["export", str(DEMO), "--out", str(tmp_path)]
        code = f"import sys; sys.modules['torch'] = None; from exporters.cli.main import main; sys.argv[1:] = {arguments}; main()"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 2
        assert "pip install 'ptycho-export[export]'" in done.stderr
        assert "Traceback" not in done.stderr


def test_layers_by_its_former_name_is_taken_and_not_shown() -> None:
    assert "--layers" in run("verify", "--help").stdout
    assert "--bisect" not in run("verify", "--help").stdout
    assert run("verify", "--bisect", "none.zip").exit_code == 2
    assert "no such option" not in run("verify", "--bisect", "none.zip").output.lower()


class TestAudit:
    def test_its_former_name_still_works_and_is_not_shown(self) -> None:
        assert run("scan", DEMO).stdout == run("audit", DEMO).stdout
        assert "scan " not in run("--help").stdout

    def test_accepted_file(self) -> None:
        result = run("audit", DEMO)
        assert result.exit_code == 0
        assert "accepted" in result.stdout

    def test_hostile_file_among_good_ones(self, tmp_path: Path) -> None:
        import os
        import pickle

        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.system, (f"touch {tmp_path / 'canary'}",)

        bad = changed(DEMO, tmp_path / "bad.zip", {"manifest.dill": pickle.dumps(Evil())})
        result = run("audit", DEMO, bad, "--json")
        assert result.exit_code == 2
        good, evil = json.loads(result.stdout)
        assert (good["verdict"], evil["verdict"]) == ("accepted", "unsafe")
        assert "system" in json.dumps(evil)
        assert not (tmp_path / "canary").exists()


class TestSeveral:
    def test_patterns_are_expanded_in_order(self, tmp_path: Path) -> None:
        for name in ("b.zip", "a.zip"):
            (tmp_path / name).touch()
        assert options.expand((str(tmp_path / "*.zip"), "other.zip")) == [
            str(tmp_path / "a.zip"),
            str(tmp_path / "b.zip"),
            "other.zip",
        ]

    def test_equal_names_get_folders_of_their_own(self, tmp_path: Path) -> None:
        paths = []
        for run_name in ("run1", "run2"):
            (tmp_path / run_name).mkdir()
            (tmp_path / run_name / "wts.h5.zip").touch()
            paths.append(str(tmp_path / run_name))
        folders = options.output_folders(paths, tmp_path / "out")
        assert [folders[p].name for p in paths] == ["run1-wts.h5", "run2-wts.h5"]


def test_unforeseen_error_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    code = (
        "import sys; from exporters.cli.main import main; from exporters.inspect import bundle\n"
        "def broken(*a): raise IndexError('deep inside')\n"
        f"bundle.inspect = broken; sys.argv[1:] = ['inspect', {str(DEMO)!r}]; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("ptycho-export: IndexError: deep inside; this is a bug")


def test_ptychopinns_package_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "ptycho_torch").mkdir()
    (tmp_path / "ptycho_torch" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from exporters import check_installation; check_installation()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MixedInstallationError" in done.stderr
    assert "probably PtychoPINN's" in done.stderr
