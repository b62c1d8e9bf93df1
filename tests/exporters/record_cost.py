"""Record what the exports cost: `python tests/exporters/record_cost.py` writes `data/cost.json` and says what changed.

The same code gives the same file: counted instructions scatter a little, so they stay as they were recorded while all new
ones are within the allowance. Without valgrind they stay too.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
# The root first: `tests/exporters` would be taken for the package otherwise.
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cost import RECORD, Figures, Instructions, bundle_figures, changes, load_record, not_comparable, tools  # noqa: E402
from instructions import COUNTED, NotCountableError, count  # noqa: E402
from sample_bundles import NAMES, members  # noqa: E402
from shared_exports import TINY, source_of  # noqa: E402

from exporters import export_bundle  # noqa: E402
from ptycho_runtime import contract  # noqa: E402


def main() -> None:
    """Export every shared bundle, and write down what its graphs cost."""
    before = load_record() if RECORD.exists() else None
    graphs: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        bundles = {}
        for name in (TINY, *NAMES):
            print(f"exporting {name}")
            source = source_of(name, folder / f"{name}-source")
            bundles[name] = export_bundle(source, folder / name, batches=(1, 3)).bundle
            graphs |= bundle_figures(name, bundles[name])
        instructions = counted(bundles, folder, before["instructions"] if before else None)
    grown, shrunk = changes(before["graphs"] if before else {}, graphs)
    for line in [*grown, *shrunk]:
        print(line)
    record = {"recorded_with": tools(), "graphs": graphs, "instructions": instructions}
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    print(
        f"{RECORD.relative_to(ROOT)}: {len(graphs)} graphs, {len(grown)} figures grew or are new, {len(shrunk)} shrank"
    )


def counted(bundles: dict[str, Path], folder: Path, before: Instructions | None) -> Instructions:
    """Return the instructions of the graphs in `COUNTED`; exits where none can be counted and none were recorded."""
    now: Instructions = {"onnxruntime": "", "instruction_set": "", "counts": {}}
    for name, graph in COUNTED:
        print(f"counting instructions of {name}/{graph}")
        model = folder / f"{name}.{graph}.onnx"
        model.write_bytes(members(bundles[name])[contract.onnx_member(graph)])
        try:
            found = count(model, folder)
        except NotCountableError as error:
            if before is None:
                sys.exit(str(error))
            print(f"{error}; the recorded ones stay")
            return before
        now |= {"onnxruntime": found.onnxruntime, "instruction_set": found.instruction_set}
        now["counts"][f"{name}/{graph}"] = found.instructions
    if before is None or not_comparable(before, now["onnxruntime"], now["instruction_set"]):
        return now
    old, new = ({key: {"instructions": n} for key, n in each["counts"].items()} for each in (before, now))
    lines = [line for side in changes(old, new) for line in side]
    for line in lines:
        print(line)
    return now if lines else before


if __name__ == "__main__":
    main()
