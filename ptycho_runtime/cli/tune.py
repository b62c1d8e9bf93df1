"""`ptycho-runtime tune`: the fastest batch and threads of this host."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptycho_runtime.cli.options import examples, positive
from ptycho_runtime.cli.terminal import say, show
from ptycho_runtime.errors import NotExportedError, OutputError


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "tune", help="find the fastest batch and threads for a model on this host, and remember them"
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
    from ptycho_runtime.engine.tune import GRAPH, choose, remember, tune
    from ptycho_runtime.export.bundle import open_export

    export = open_export(arguments.bundle)
    if GRAPH not in export.graphs:
        raise NotExportedError(f"{export.path.name}: holds no {GRAPH} graph, which tuning measures")
    device, trials = tune(export, arguments.device, rounds=arguments.rounds, progress=say)
    setting = choose(trials)
    try:
        path = remember(export, device, setting)
    except OutputError as error:
        reason = str(error).partition(";")[0]
        raise OutputError(
            f"the setting cannot be kept: {reason}; set XDG_CACHE_HOME to a folder that can be written"
        ) from error
    best = max(trial.groups_per_s for trial in trials)
    if arguments.json:
        rows = [{**vars(t.setting), "of_fastest": t.groups_per_s / best, "spread": t.spread} for t in trials]
        show(json.dumps({"device": device, "chosen": vars(setting), "trials": rows, "kept_in": str(path)}, indent=1))
        return 0
    show(f"{'batch':>5s} {'threads':>8s} {'of the fastest':>15s} {'spread':>7s}")
    for trial in trials:
        mark = "  chosen" if trial.setting == setting else ""
        show(
            f"{trial.setting.batch:5d} {trial.setting.threads:8d} {100 * trial.groups_per_s / best:13.0f} % {100 * trial.spread:5.0f} %{mark}"
        )
    show(f"batch {setting.batch}, {setting.threads} threads on {device}, kept in {path}")
    return 0
