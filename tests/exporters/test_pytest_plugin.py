"""The plug-in in somebody else's project."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sample_bundles import ROOT, changed, members
from shared_exports import TINY, tiny_bundle
from tampering import with_flipped_weight

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from exporters import ExportResult, pipeline  # noqa: E402
from exporters.cli.main import cli  # noqa: E402
from ptycho_runtime.contract import GRAPHS  # noqa: E402

Exported = Callable[[str], ExportResult]
RUNS = (
    *(f"{runtime}-{device}" for device in ("cpu", "cuda", "cuda-tf32") for runtime in ("eager", "torchscript", "onnx")),
    "onnx-tensorrt-tf32",
)


class Done:
    """What a run of pytest ended with."""

    def __init__(self, returncode: int, stdout: str, stderr: str) -> None:
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


def command(folder: Path, arguments: tuple[object, ...]) -> list[str]:
    """Return pytest's arguments: the plug-in by name, so that it is there once, whether or not the entry point brings it too.

    `unraisableexception` would have all objects of this process looked through at the end of each run.
    """
    plugins = [
        "-p",
        "exporters.pytest_plugin",
        *(f"-pno:{name}" for name in ("cacheprovider", "faulthandler", "logging", "unraisableexception")),
    ]
    return [*plugins, "--rootdir", str(folder), "-c", "/dev/null", "-v", "--ptycho-batches", "1", *map(str, arguments)]


def run(folder: Path, *arguments: object, own: bool = True) -> Done:
    """Run pytest in this process on somebody else's tests: PyTorch is here already."""
    if own:
        (folder / "test_own.py").write_text("def test_own():\n    assert True\n")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(folder)
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        code = pytest.main([*command(folder, arguments), "--import-mode", "importlib", "--capture", "no"])
    return Done(int(code), out.getvalue(), err.getvalue())


def run_alone(folder: Path, *arguments: object) -> Done:
    """Run pytest in a process of its own."""
    environment = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'exporters'}",
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    program = [sys.executable, "-m", "pytest", *command(folder, arguments)]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module", autouse=True)
def verified_once() -> Iterator[None]:
    """Let runs that ask for the same proof share it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "verify_bundle", functools.cache(pipeline.verify_bundle))
        yield


@pytest.fixture(scope="module")
def bad(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a bundle with one weight of one ONNX file flipped."""
    bundle, name = exported(TINY).bundle, "autoencoder/model.onnx"
    new = {name: with_flipped_weight(members(bundle)[name])}
    return changed(bundle, tmp_path_factory.mktemp("flipped") / "bad.zip", new)


def test_rows_become_tests(exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", exported(TINY).bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "diffraction_to_obj-onnx-cpu-batch1 PASSED" in done.stdout
    assert "autoencoder-torchscript-cpu-batch1 PASSED" in done.stdout
    assert "test_own PASSED" in done.stdout


@pytest.mark.long
def test_rows_become_tests_in_a_process_of_its_own(exported: Exported, tmp_path: Path) -> None:
    (tmp_path / "test_own.py").write_text("def test_own():\n    assert True\n")
    done = run_alone(tmp_path, "--ptycho-bundle", exported(TINY).bundle)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "autoencoder-torchscript-cpu-batch1 PASSED" in done.stdout


def test_bad_export_fails_its_rows(bad: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", bad)
    assert done.returncode == 1
    assert "autoencoder-onnx-cpu-batch1 FAILED" in done.stdout
    assert "diffraction_to_obj-onnx-cpu-batch1 PASSED" in done.stdout
    assert "times the allowed error" in done.stdout


def test_no_choice_among_tests_takes_the_verdict_out(bad: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", bad, "-k", "test_own or eager", "--deselect", f"{bad}::verdict")
    assert done.returncode == 1
    assert "autoencoder-onnx-cpu-batch1" not in done.stdout
    assert "verdict FAILED" in done.stdout


@pytest.mark.long
def test_a_refused_export_shows_its_rows(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import exporters.pipeline as pipeline\nfrom tampering import with_flipped_weight\nhonest = pipeline.trace_family\n"
        "def sabotaged(family, metadata):\n"
        "    made = honest(family, metadata).items()\n"
        "    return {name: {**files, 'onnx': with_flipped_weight(files['onnx'])} for name, files in made}\n"
        "pipeline.trace_family = sabotaged\n"
    )
    done = run_alone(tmp_path, "--ptycho-bundle", tiny_bundle(tmp_path))
    assert done.returncode == 1
    assert "autoencoder-onnx-cpu-batch1 FAILED" in done.stdout
    assert "autoencoder-torchscript-cpu-batch1 PASSED" in done.stdout
    assert "verdict FAILED" in done.stdout


def test_no_test_of_the_own_is_needed_and_every_test_has_a_name_of_its_own(exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", exported(TINY).bundle, "-W", "error", own=False)
    assert done.returncode == 0, done.stdout + done.stderr
    names = [line.rsplit("::", 1)[-1] for line in re.findall(r"(\S.*) (?:PASSED|SKIPPED)", done.stdout)]
    assert len(names) == len(set(names))
    assert not any(" " in name for name in names)
    assert names[-1] == "verdict"
    summary = re.search(r"(\d+) passed, (\d+) skipped in", done.stdout)
    assert summary is not None
    assert sum(map(int, summary.groups())) == len(names)
    # Each graph on each runtime, device and precision, with more than one batch where the batch is chosen.
    batches = Counter(name.rsplit("-batch", 1)[0] for name in names[:-1])
    several = {batches[f"{graph}-{where}"] for graph in GRAPHS for where in RUNS}
    assert len(several) == 1
    assert min(several) > 1
    whole = ("numpy-cpu-float64", "onnx-behind-its-network-cpu", "onnx-by-layer-cpu", "torchscript-by-layer-cpu")
    once = {f"{graph}-{where}" for graph in GRAPHS for where in whole}
    assert {name for name, count in batches.items() if count == 1} == once
    assert set(batches) == once | {f"{graph}-{where}" for graph in GRAPHS for where in RUNS}


def test_tests_are_chosen_by_name(exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", exported(TINY).bundle, "-k", "verdict")
    assert "verdict PASSED" in done.stdout
    assert re.search(r"1 passed, \d+ deselected", done.stdout)
    assert not re.search(r"batch\d+ |test_own ", done.stdout)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a CUDA device")
def test_required_device_that_is_absent_fails_its_rows_and_the_verdict(exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", exported(TINY).bundle, "--ptycho-require", "cuda")
    assert done.returncode == 1
    assert "autoencoder-onnx-cuda-batch1 FAILED" in done.stdout
    assert "required, but not run: no CUDA device" in done.stdout
    assert "verdict FAILED" in done.stdout
    assert "autoencoder-onnx-cpu-batch1 PASSED" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ptycho-batches", "0"), "expected whole numbers from 1 to 4096"),
        (("--ptycho-batches", "1,x"), "expected whole numbers from 1 to 4096"),
        (("--ptycho-require", "cdua"), "invalid choice: 'cdua'"),
        (("--ptycho-require", "cuda"), "there is no bundle to prove"),
    ],
)
def test_options_that_would_prove_nothing_are_refused(arguments: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = run(tmp_path, *arguments)
    assert done.returncode == 4
    assert message in done.stderr


def test_absent_scan_fails(exported: Exported, tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", exported(TINY).bundle, "--ptycho-scan", tmp_path / "none.npz")
    assert done.returncode == 1
    assert "no such scan" in done.stdout


def test_workflow_for_others_uses_options_that_exist() -> None:
    text = (ROOT / "examples" / "ci" / "ptycho-parity.yml").read_text()
    commands = [line.split(None, 2)[1:] for line in re.findall(r"(?:ptycho-export) \S+.*", text)]
    assert {command for command, *_ in commands} == {"audit", "export"}
    assert all(command in cli.commands for command, *_ in commands)
    assert "pytest --ptycho-bundle exported/wts.h5.zip --junitxml parity.junit.xml" in text


def test_absent_bundle_fails(tmp_path: Path) -> None:
    done = run(tmp_path, "--ptycho-bundle", tmp_path / "none.zip")
    assert done.returncode == 1
    assert "readable FAILED" in done.stdout
    assert "no such bundle" in done.stdout


def test_installation_declares_it() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert declared == {"ptycho-export": "exporters.pytest_plugin"}
