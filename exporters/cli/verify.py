"""`ptycho-export verify`: the proof again, on what is stored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from exporters.cli import options
from exporters.cli.scan_options import read_options, scan_options
from exporters.cli.terminal import Say, echo, guarded, print_report
from ptycho_runtime.export.precision import Budget
from ptycho_torch.build import require_torch


@click.command()
@click.argument("bundle")
@click.option(
    "--report", type=click.Path(path_type=Path), help="Folder for parity.json, parity.junit.xml and report.html."
)
@options.scan
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="NPZ of PtychoPINN's own outputs, which the models are held against too; docs/parity.md says how to make one.",
)
@click.option(
    "--store-baseline",
    is_flag=True,
    help="Put what the model leaves unexplained on the scan into the bundle's exports.json, by which hosts judge images.",
)
@scan_options
@options.budget
@options.require
@options.batches
@options.layers
@options.run_stored_torchscript
@options.as_json
def verify(bundle: str, report: Path | None, batches: str, budget: str | None, as_json: bool, **chosen: Any) -> None:
    """Repeat the parity check on the exports stored in BUNDLE, against its original weights."""
    chosen |= {"batches": options.batch_sizes(batches), "scan_options": read_options(chosen)}

    def run(say: Say) -> None:
        require_torch("verify")
        allowed = None if budget is None else Budget.parse(budget)
        from exporters.parity.report import SCHEMA
        from exporters.pipeline import raise_unless_passed, verify_bundle
        from exporters.stored.places import REPORT_FILES, refuse_foreign_reports
        from exporters.stored.write import store_reports

        if report is not None:
            refuse_foreign_reports(report, REPORT_FILES, SCHEMA)
        say("proving it again, about a minute on two cores")
        proof = verify_bundle(bundle, budget=allowed, progress=say, **chosen)
        if report is not None:
            store_reports(report, proof)
        if as_json:
            echo(proof.to_json().rstrip())
        else:
            print_report(proof)
        where = f"the report is in {report}" if report is not None else "--report FOLDER keeps the report"
        raise_unless_passed(proof, "do not use these exports; export the bundle again", where)

    sys.exit(guarded(bundle, run).exit_code)
