"""Run a kept input of a parity check again and judge it as then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from exporters.errors import DeviceRequiredError
from exporters.formats.torchscript_check import check_torchscript
from exporters.formats.torchscript_run import StoredTorchScript
from exporters.parity.evidence import Case, read_replay
from exporters.parity.rows import ParityRow
from exporters.parity.runners import FAILURES, NotRunnable, OnnxRunner, Outputs, TorchScriptRunner
from exporters.parity.trials import judge
from exporters.stored.open import StoredExports
from exporters.stored.torchscript import torchscript_to_run
from ptycho_runtime import contract
from ptycho_runtime.engine.session import Session
from ptycho_runtime.export.onnx_file import CheckedModel
from ptycho_torch.bundle import BundleRecord, read_bundle
from ptycho_torch.errors import BundleError, UnsafeContentError

MakeTorchScript = Callable[[BundleRecord, str], bytes]
MAX_BYTES = 2 << 30


def replay_file(
    path: Path,
    bundle: Path | None = None,
    *,
    make_torchscript: MakeTorchScript | None = None,
    run_stored_torchscript: bool = False,
) -> tuple[ParityRow, str]:
    """Return the judged row, and in words whether the numbers are those of the first time.

    Args:
        path: a `worst.GRAPH.npz` that an export or a verification left.
        bundle: the exported bundle whose file is run; the file kept in `path`, else the one `.zip` beside it where None.
        make_torchscript: makes a graph's TorchScript anew from a bundle's weights (`pipeline.torchscript_of`): what is run.
        run_stored_torchscript: run a kept or stored TorchScript as it is, in a process without files and network.

    Raises:
        FileNotFoundError: one of the two is not there.
        BundleError: one of the two is not what it should be, or the bundle is not named and not certain.
        UnsafeContentError: a TorchScript file that is not what a bundle's weights give.
        DeviceRequiredError: the row's device is absent here.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such file; export and verify --report leave worst.GRAPH.npz in their folder"
        )
    if path.stat().st_size > MAX_BYTES:
        raise BundleError(f"{path}: has more than {MAX_BYTES} bytes, which no replay file has")
    case, name, model = read_replay(path.read_bytes(), str(path))
    if case.runtime not in ("onnx", "torchscript") or case.graph not in contract.ALL_GRAPHS:
        raise BundleError(f"{path}: is of {case.runtime!r} and {case.graph!r}, which no export has")
    problems: list[str] = []
    notice = ""
    if bundle is not None or model is None:
        record = read_bundle(bundle or _beside(path))
        stored = StoredExports.open(record)
        model = stored.onnx(case.graph) if case.runtime == "onnx" else stored.torchscript(case.graph)
        problems = stored.problems
        if case.runtime == "torchscript" and make_torchscript is not None:
            where = f"{record.path.name}: {contract.torchscript_member(case.graph)}"
            model, notice = torchscript_to_run(
                model,
                make_torchscript(record, case.graph),
                stored.record,
                where,
                as_stored=run_stored_torchscript,
            )
    elif case.runtime == "torchscript":
        where = f"{name}: {case.graph}.torchscript"
        check_torchscript(model, where)
        if not run_stored_torchscript:
            raise UnsafeContentError(
                f"{path}: keeps a TorchScript program, which is not run because somebody sent it; refused: name the exported bundle with "
                "--bundle, or give --run-stored-torchscript to run it in a process without files and network"
            )
        model = StoredTorchScript(model)
    else:
        model = CheckedModel(model, f"{name}: {case.graph}.onnx")
    row = ParityRow(
        case.graph, case.runtime, case.device, case.precision, len(case.kinds), ", ".join(case.kinds), "passed"
    )
    try:
        with _runner(case, model) as runner:
            found = runner.run(case.feed)
    except NotRunnable as error:
        raise DeviceRequiredError(f"{path.name}: was run on {case.device}, which cannot be used: {error}") from error
    except FAILURES as error:
        row.verdict, row.reason = "failed", f"it raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return row, "no numbers to compare"
    shapes: dict[str, tuple[list[int | str], str]] = {
        key: (list(value.shape), "float32") for key, value in case.reference.items()
    }
    judge(row, found, cast(Outputs, case.reference), cast(Outputs, case.eager32), shapes)
    if problems:
        row.verdict, row.reason = "failed", "; ".join(problems)
    same = (
        not notice
        and found.keys() == case.found.keys()
        and all(found[key].tobytes() == case.found[key].tobytes() for key in case.found)
    )
    if notice:
        return row, notice
    return row, "the same numbers as then, bit for bit" if same else "other numbers than then"


def _beside(path: Path) -> Path:
    candidates = sorted(path.parent.glob("*.zip"))
    if len(candidates) != 1:
        raise BundleError(f"{path}: {len(candidates)} bundles lie beside it; name the exported one with --bundle")
    return candidates[0]


def _runner(case: Case, model: bytes) -> Session:
    tf32 = case.precision == "tf32"
    if case.runtime == "onnx":
        return OnnxRunner(model, case.device, tf32=tf32)

    def named(names: Any) -> list[contract.TensorInfo]:
        return [{"name": name, "shape": [], "dtype": "float32"} for name in names]

    return TorchScriptRunner(model, named(case.feed), named(case.reference), case.device, tf32=tf32)
