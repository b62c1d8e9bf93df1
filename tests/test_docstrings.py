"""Every public function and class has an example, and the example gives what it says."""

from __future__ import annotations

import doctest
import importlib
import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sample_bundles import ROOT
from shared_exports import export_once

PACKAGES = ("ptycho_runtime", "ptycho_torch", "exporters")
NEEDS_TORCH = ("ptycho_torch.model_manager", "exporters")
# They export or prove the demo, which takes minutes.
LONG = ("export_bundle", "verify_bundle", "ExportResult")
NEEDS_EXPORT = ("check_host", "verify_bundle")


def public() -> Iterator[tuple[str, object]]:
    """Yield public functions and classes, and the public methods of classes, by name; errors are no use of anything."""
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            try:
                value = getattr(module, name)
            except RuntimeError:
                continue  # PyTorch is not installed
            if inspect.isclass(value) and issubclass(value, BaseException):
                continue
            if inspect.isclass(value) or inspect.isfunction(value):
                yield f"{package}.{name}", value
            if inspect.isclass(value):
                for method, function in vars(value).items():
                    if inspect.isfunction(function) and not method.startswith("_"):
                        yield f"{package}.{name}.{method}", function


PUBLIC = dict(public())
# Methods that say all of themselves by name and type, of values.
WITHOUT_EXAMPLE = {
    "ptycho_runtime.Export.variant_patterns",
    "ptycho_runtime.Scan.close",
    "ptycho_runtime.Scan.close_file",
    "ptycho_runtime.Scan.finish",
    "ptycho_torch.ModelSpec.dumps",
    "ptycho_torch.ModelSpec.to_json",
}


def examples_of(value: object) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


def test_every_public_name_has_an_example() -> None:
    lacking = {name for name, value in PUBLIC.items() if not examples_of(value)}
    assert lacking - WITHOUT_EXAMPLE == set()


def cases() -> list[object]:
    found = []
    for name, value in PUBLIC.items():
        if examples_of(value):
            marks = [pytest.mark.long] if name.rpartition(".")[2] in LONG else []
            found.append(pytest.param(name, marks=marks))
    return found


@pytest.mark.parametrize("name", cases())
def test_example_gives_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if name.startswith("ptycho_torch") or name.rpartition(".")[2] in (*LONG, *NEEDS_EXPORT):
        pytest.importorskip("torch", reason="PyTorch is not installed")
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "demo" / "wts.h5.zip", tmp_path)
    if name.rpartition(".")[2] in NEEDS_EXPORT:
        (tmp_path / "exported").mkdir()
        shutil.copy(export_once("cnn-2026-07-n64-g1-demo", tmp_path_factory).bundle, tmp_path / "exported/wts.h5.zip")
    test = doctest.DocTest(examples_of(PUBLIC[name]), {}, name, None, 0, None)
    printed: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    result = runner.run(test, out=printed.append)
    assert result.attempted > 0
    assert result.failed == 0, "".join(printed)
