"""What an export, a report or an architecture would replace is looked at before any work is done."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from sample_bundles import DEMO, bundle_path

from exporters.cli.main import cli
from exporters.options import ExportOptions
from exporters.parity.report import SCHEMA
from exporters.preflight import plan_export
from exporters.stored.places import PARITY_JSON, PARITY_MARKDOWN, REPORT_FILES, refuse_foreign_reports
from ptycho_runtime.errors import OutputError


def test_another_runs_bundle_in_the_output_folder_stays(tmp_path: Path) -> None:
    other = tmp_path / "wts.h5.zip"
    other.write_bytes(bundle_path("ffno-2026-07-n64-g1").read_bytes())
    with pytest.raises(
        OutputError, match=r"wts\.h5\.zip: exists, and is not an earlier export; give another --out, or --force"
    ):
        plan_export(DEMO, tmp_path, ExportOptions())
    plan_export(DEMO, tmp_path, ExportOptions(force=True)).close()


def test_a_link_to_nothing_in_its_place_is_somebodys(tmp_path: Path) -> None:
    (tmp_path / "wts.h5.zip").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="is not an earlier export"):
        plan_export(DEMO, tmp_path, ExportOptions())


def test_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "wts.h5.zip", "w") as archive:
        archive.writestr("exports.json", "{}")
    plan_export(DEMO, tmp_path, ExportOptions()).close()


def test_reports_of_others_stay(tmp_path: Path) -> None:
    (tmp_path / PARITY_MARKDOWN).write_text("# my notes on parity\n")
    with pytest.raises(OutputError, match=r"parity\.md: exists, and is not of an earlier report; give another folder"):
        refuse_foreign_reports(tmp_path, REPORT_FILES, SCHEMA)
    with pytest.raises(OutputError, match=r"parity\.md: exists"):
        plan_export(DEMO, tmp_path, ExportOptions())
    (tmp_path / PARITY_JSON).write_text(json.dumps({"schema": SCHEMA}))
    refuse_foreign_reports(tmp_path, REPORT_FILES, SCHEMA)


def test_an_architecture_never_replaces_the_bundle(tmp_path: Path) -> None:
    bundle = tmp_path / "wts.h5.zip"
    bundle.write_bytes(DEMO.read_bytes())
    done = CliRunner().invoke(cli, ["inspect", str(bundle), "--write-architecture", str(bundle)])
    assert done.exit_code == 2
    assert "exists, and is no architecture; give another name" in done.stderr
    assert bundle.read_bytes() == DEMO.read_bytes()
    for _ in range(2):
        done = CliRunner().invoke(cli, ["inspect", str(bundle), "--write-architecture", str(tmp_path / "a.json")])
        assert done.exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text())["generator"] == "cnn"
