"""Put exports into a bundle and beside it, whole or not at all; PtychoPINN's own members stay byte for byte."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from exporters.parity.forms.html import to_html
from exporters.parity.forms.junit import to_junit
from exporters.parity.forms.markdown import to_markdown
from exporters.parity.forms.pictures import pictures
from exporters.parity.report import ParityReport
from exporters.stored.exchange import store_in_folder
from exporters.stored.places import PARITY_JSON, PARITY_JUNIT, PARITY_MARKDOWN, REPORT_HTML
from ptycho_runtime import contract
from ptycho_runtime.files import write_file
from ptycho_torch.bundle import BundleRecord, is_own_member
from ptycho_torch.bundle.write import write_zip

PARAMS_BEFORE = "params_snapshot_before.json"
PARAMS_AFTER = "params_snapshot_after.json"
ARCHIVE_TREE = "archive_tree.txt"


def export_files(
    exports: bytes, golden: bytes, artifacts: Mapping[str, Mapping[str, bytes]], variants: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Return the members that an export adds, by name, in the order they are stored."""
    files: dict[str, bytes] = {}
    for graph, formats in artifacts.items():
        files[contract.onnx_member(graph)] = formats["onnx"]
        files[contract.torchscript_member(graph)] = formats["torchscript"]
    return {**files, contract.EXPORTS_JSON: exports, contract.GOLDEN_NPZ: golden, **variants}


def store_bundle(record: BundleRecord, target: Path, files: Mapping[str, bytes]) -> None:
    """Write the augmented bundle: the source's own members as they were and in their order, then the exports.

    Raises:
        ChangedMeanwhileError: the source is replaced and is not what was read any more; it stays, the new one lies beside it.
        OutputError: the disk refuses; an older file at `target` stays whole.
        DamagedBundleError: the source can no longer be read.
    """
    if record.kind == "folder" and target == record.path:
        store_in_folder(record, files)
        return
    source = target.exists() and record.path.exists() and target.samefile(record.path)
    write_zip(target, _members(record, files), record.sha256 if source else None)


def store_members(record: BundleRecord, files: Mapping[str, bytes]) -> None:
    """Put some of this project's members into the bundle that was read, in place of those that are there; errors as of `store_bundle`."""
    ours = {name: record.read_member(name) for name, _ in record.members if is_own_member(name)}
    store_bundle(record, record.path, {**ours, **files})


def _members(record: BundleRecord, files: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for name, _ in record.members:
        if not is_own_member(name):
            yield name, record.read_member(name)
    yield from files.items()


def store_reports(folder: Path, report: ParityReport) -> None:
    """Write the parity report beside the bundle, for people and for machines, and the worst inputs for `replay`."""
    write_file(folder / PARITY_JSON, report.to_json().encode())
    write_file(folder / PARITY_JUNIT, to_junit(report).encode())
    write_file(folder / PARITY_MARKDOWN, to_markdown(report).encode())
    evidence = report.evidence
    write_file(folder / REPORT_HTML, to_html(report, () if evidence is None else pictures(evidence)).encode())
    for name, data in ({} if evidence is None else evidence.replay_files()).items():
        write_file(folder / name, data)


def archive_tree(record: BundleRecord, files: Mapping[str, bytes]) -> str:
    """Return the augmented bundle's members with sizes, one a line; `+` marks what the export added."""
    lines = [(" ", name, size) for name, size in record.members if not is_own_member(name)]
    lines += [("+", name, len(data)) for name, data in files.items()]
    return "".join(f"{mark} {size:>12,d}  {name}\n" for mark, name, size in lines)
