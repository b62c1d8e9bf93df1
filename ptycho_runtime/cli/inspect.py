"""`ptycho-runtime inspect`: what would be understood of a scan or of an exported bundle, before anything runs."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_runtime.cli.options import examples, positive, read_options, scan_options
from ptycho_runtime.cli.terminal import show
from ptycho_runtime.files import check_is_file, printable

if TYPE_CHECKING:
    from ptycho_runtime.export.bundle import Export


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("inspect", help="say what would be understood of a scan or an exported bundle")
    command.add_argument("file", type=Path, help="a scan, an exported bundle or an .onnx file")
    command.add_argument("--size", type=positive, metavar="N", help="side of the model's patterns (as the scan's)")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    scan_options(command)
    examples(
        command,
        """
        ptycho-runtime inspect wts.h5.zip
        ptycho-runtime inspect scan.cxi --size 64 --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    path: Path = arguments.file
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected a scan or an exported bundle")
    check_is_file(path, "scan or exported bundle")
    if is_export(path):
        from ptycho_runtime.export.bundle import open_export

        facts = export_facts(open_export(path))
    else:
        from ptycho_runtime.scan.facts import scan_facts
        from ptycho_runtime.scan.layouts.contents import contents
        from ptycho_runtime.scan.read import read_scan

        options = read_options(arguments)
        holds = {"holds": contents(path, options)}
        if not arguments.json:
            print_facts(holds)  # also of a file that leaves something open
        with read_scan(path, arguments.size, options) as scan:
            facts = (holds if arguments.json else {}) | scan_facts(scan)
    print_facts(facts, as_json=arguments.json)
    return 0


def print_facts(facts: dict[str, Any], *, as_json: bool = False) -> None:
    """Print facts on standard output, one line each; a list has a line for each of its entries."""
    if as_json:
        show(json.dumps(facts, indent=1))
        return
    for name, value in facts.items():
        for entry in value if isinstance(value, list) else [value]:
            show(f"{name:18s} {printable(entry, 400)}")


def is_export(path: Path) -> bool:
    """Say whether a file is a bundle or an `.onnx` file, by its content: a zip with a manifest or exports, or none of scans' kinds."""
    if path.suffix.lower() == ".onnx":
        return True
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    return bool(names & {"manifest.dill", "exports.json"})


def export_facts(export: Export) -> dict[str, Any]:
    """Return what an export is and what it takes: text, or lists of text, by topic."""
    from ptycho_runtime.contract import INPUT_SCALE_FORMULAS

    frozen = f"{export.scale_value:.9g}, frozen by training" if export.scale_value else "computed once a scan"
    return {
        "export": export.path.name,
        "graphs": sorted(export.graphs),
        "patterns": f"{export.C} in a group, {export.N} x {export.N} px, zero frequency at {export.N // 2},{export.N // 2}",
        "domain": _domain(export),
        "input scale": f"{frozen}: {INPUT_SCALE_FORMULAS[export.scale_formula]}",
        "era": export.era,
    }


def _domain(export: Export) -> str:
    """Say what patterns are fed, and why."""
    fed = "counts are fed" if export.domain == "counts" else "roots of counts are fed"
    if export.domain_note:
        return f"{export.domain}: {export.domain_note}"
    if export.record is None:
        return f"{export.domain}: {fed}, as the file's metadata say"
    return f"{export.domain}: {fed}; the model has {export.record.spec.get('physics')} physics"
