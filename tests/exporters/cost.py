"""What an exported graph costs, in figures that no clock and no other process can disturb, and what was recorded of it."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import onnx
from sample_bundles import members

from exporters.graph.cost import multiply_adds
from ptycho_runtime import contract

Figures = dict[str, int]

RECORD = Path(__file__).parent / "data" / "cost.json"
RECORD_COMMAND = "python tests/exporters/record_cost.py"
# Room for a longer version number, which each file carries; one more operator takes about as much.
ALLOWANCE_BYTES = 256
# Five counts of each graph lay within 0.006 % of each other; the rest is room for another Python or libc around the run.
ALLOWANCE_INSTRUCTIONS = 1e-3
_MODULE = re.compile(rb"__torch__\.(?:\w+\.)+(?=\w)")
_TOOLS = ("onnx", "onnx-ir", "onnxscript", "torch")


class Instructions(TypedDict):
    """Instructions of one inference; they hold for this onnxruntime and this instruction set alone."""

    onnxruntime: str
    instruction_set: str
    counts: Figures  # by `BUNDLE/GRAPH`


class Record(TypedDict):
    """Content of `cost.json`."""

    recorded_with: dict[str, str]  # package -> version
    graphs: dict[str, Figures]  # by `BUNDLE/GRAPH`
    instructions: Instructions


def load_record() -> Record:
    """Return what was recorded."""
    record: Record = json.loads(RECORD.read_text())
    return record


def tools() -> dict[str, str]:
    """Return the versions of the packages that decide what an export looks like, without the build's name (`+cpu`)."""
    return {name: version(name).partition("+")[0] for name in _TOOLS}


def figures(onnx_file: bytes, torchscript_file: bytes) -> Figures:
    """Return what one graph costs: its operators by type and in all, multiply-adds of one group with one probe mode, bytes."""
    types = Counter(node.op_type for node in onnx.load_from_string(onnx_file).graph.node)
    return {
        **{f"operator {name}": count for name, count in types.items()},
        "operators": types.total(),
        "multiply_adds": multiply_adds(onnx_file),
        "onnx_bytes": len(onnx_file),
        "torchscript_bytes": torchscript_bytes(torchscript_file),
    }


def torchscript_bytes(data: bytes) -> int:
    """Return the size of a TorchScript file's members without the modules that its type names stand in: where code lies is no cost."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return sum(len(_MODULE.sub(b"__torch__.", archive.read(name))) for name in archive.namelist())


def bundle_figures(name: str, bundle: Path) -> dict[str, Figures]:
    """Return what each graph of an exported bundle costs, by `NAME/GRAPH`."""
    stored = members(bundle)
    return {
        f"{name}/{graph}": figures(stored[contract.onnx_member(graph)], stored[contract.torchscript_member(graph)])
        for graph in contract.ALL_GRAPHS
        if contract.onnx_member(graph) in stored
    }


def changes(recorded: Mapping[str, Figures], found: Mapping[str, Figures]) -> tuple[list[str], list[str]]:
    """Return one line for each figure that grew, and one for each that shrank; a graph on one side alone counts as grown."""
    grown = [f"{graph} was not recorded" for graph in sorted(found.keys() - recorded.keys())]
    grown += [f"{graph} was recorded but is not exported" for graph in sorted(recorded.keys() - found.keys())]
    shrunk = []
    for graph in sorted(recorded.keys() & found.keys()):
        for name in sorted(recorded[graph].keys() | found[graph].keys()):
            before, now = recorded[graph].get(name, 0), found[graph].get(name, 0)
            allowed = _allowance(name, before)
            if now > before + allowed:
                grown.append(f"{graph}: {name} grew from {before:,} to {now:,}")
            elif now < before - allowed:
                shrunk.append(f"{graph}: {name} shrank from {before:,} to {now:,}")
    return grown, shrunk


def _allowance(name: str, before: int) -> float:
    if name == "instructions":
        return ALLOWANCE_INSTRUCTIONS * before
    return ALLOWANCE_BYTES if name.endswith("_bytes") else 0


def not_comparable(recorded: Instructions, onnxruntime: str, instruction_set: str) -> str:
    """Return why instructions counted under these conditions say nothing beside the recorded ones; empty where they do."""
    was = (recorded["onnxruntime"], recorded["instruction_set"])
    if was == (onnxruntime, instruction_set):
        return ""
    return (
        f"instructions were recorded under onnxruntime {was[0]} with {was[1]}; "
        f"here it is onnxruntime {onnxruntime} with {instruction_set or 'none of these'}"
    )


def advice(recorded_with: Mapping[str, str]) -> str:
    """Return how to record anew, and which tools are not those of the record."""
    here = tools()
    others = [f"{name} {old}, here {here[name]}" for name, old in recorded_with.items() if here[name] != old]
    told = f"; recorded with {'; '.join(others)}" if others else ""
    return f"if that is meant, record it with `{RECORD_COMMAND}`{told}"
