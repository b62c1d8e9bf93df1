"""`ptycho-runtime tune`: the fastest engine, batch and threads of this host."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_runtime import contract
from ptycho_runtime.cli.options import examples, positive
from ptycho_runtime.cli.terminal import say, show
from ptycho_runtime.errors import NotExportedError, OutputError

if TYPE_CHECKING:
    from ptycho_runtime.engine.tune import Measured
    from ptycho_runtime.engine.tuned import Setting


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "tune", help="find the fastest engine, batch and threads for a model on this host, and remember them"
    )
    command.add_argument("bundle", type=Path)
    command.add_argument("--rounds", type=positive, default=7, help="how often each setting has its turn (7)")
    command.add_argument("--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto")
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    examples(
        command,
        """
        ptycho-runtime tune wts.h5.zip
        ptycho-runtime tune wts.h5.zip --device cpu --rounds 3 --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ptycho_runtime.engine.tune import tune
    from ptycho_runtime.engine.tuned import Wanted, choose, remember
    from ptycho_runtime.export.bundle import open_export

    export = open_export(arguments.bundle)
    if contract.DIFFRACTION_TO_OBJ not in export.graphs:
        raise NotExportedError(
            f"{export.path.name}: holds no {contract.DIFFRACTION_TO_OBJ} graph, which tuning measures"
        )
    answers: dict[str, Any] = {}
    for graph in export.graphs:
        measured = tune(export, graph, arguments.device, rounds=arguments.rounds, progress=say)
        tuned = measured.tuned
        try:
            path = remember(export, graph, measured.device, tuned)
        except OutputError as error:
            reason = str(error).partition(";")[0]
            raise OutputError(
                f"the setting cannot be kept: {reason}; set XDG_CACHE_HOME to a folder that can be written"
            ) from error
        chosen = {
            precision: choose(tuned.trials, Wanted(reduced=reduced))
            for precision, reduced in (("float32", False), ("auto", None))
        }
        best = max(trial.groups_per_s for trial in tuned.trials)
        rows = [{**vars(t.setting), "of_fastest": t.groups_per_s / best, "spread": t.spread} for t in tuned.trials]
        answers[graph] = {
            "device": measured.device,
            "chosen": {precision: setting and vars(setting) for precision, setting in chosen.items()},
            "trials": rows,
            "left_out": measured.left_out,
            "kept_in": str(path),
        }
        if not arguments.json:
            show("\n".join(_table(graph, measured, set(chosen.values()))))
            show(f"kept in {path}")
    if arguments.json:
        show(json.dumps(answers, indent=1))
    return 0


def _table(graph: str, measured: Measured, chosen: set[Setting | None]) -> list[str]:
    """Return what was measured of a graph, in lines."""
    trials = measured.tuned.trials
    best = max(trial.groups_per_s for trial in trials)
    lines = [
        f"{graph} on {measured.device}",
        f"  {'engine':20s}{'batch':>6s}{'threads':>9s}{'of the fastest':>16s}{'spread':>8s}",
    ]
    for trial in trials:
        setting = trial.setting
        lines.append(
            f"  {setting.label:20s}{setting.batch:6d}{setting.threads:9d}{100 * trial.groups_per_s / best:14.0f} %{100 * trial.spread:6.0f} %"
            + "  chosen" * (setting in chosen)
        )
    return lines + [f"  {label} was left out: {reason}" for label, reason in measured.left_out.items()]
