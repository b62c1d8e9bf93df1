"""The command line: `ptycho-runtime reconstruct|predict|check|tune|doctor`. One line per error, exit codes a script can use."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from ptycho_runtime.errors import (
    NotExportedError,
    OutputError,
    PtychoExportError,
    ReconstructionError,
)

_TRACEBACK = "PTYCHO_RUNTIME_TRACEBACK"
EXIT_PARTIAL = 130  # stopped by Ctrl-C, as shells have it; what was finished is written


def parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    top = argparse.ArgumentParser(
        prog="ptycho-runtime",
        description="Run exported PtychoPINN models without PyTorch.",
        epilog="Exit codes: 0 well, 2 bad input, 3 this host computes something else, 4 the device is absent, 130 stopped, 1 a bug here.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    one = commands.add_parser("reconstruct", help="turn a scan into an image")
    one.add_argument("bundle", type=Path, help="exported bundle (.zip) or .onnx file")
    one.add_argument("scan", type=Path, help="PtychoPINN NPZ, CXI, HDF5 or Ptychodus diffraction file")
    one.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="result: .h5 (Ptychodus product), .npz, .cxi, .tif or .png; a .png comes with each",
    )
    _device(one)
    _cuda_graph(one)
    one.add_argument("--batch", type=_positive, help="groups of patterns per run (as tuned, else 16)")
    one.add_argument("--input-scale", type=float, help="input_scale_factor, in place of the one computed from the scan")
    one.add_argument("--crop-px", type=_positive, help="side of the middle of each patch that is used (N/2 − 4)")
    one.add_argument(
        "--weighting",
        choices=("auto", "probe", "window"),
        default="auto",
        help="trust in each pixel of a patch (auto: the probe's intensity where known)",
    )
    _precision(one)
    one.add_argument("--no-quality", action="store_true", help="leave out each pattern's residual")
    one.add_argument("--quiet", action="store_true", help="no progress bar")
    _scan_options(one)

    two = commands.add_parser("predict", help="object patches of a few patterns, from .npy to .npy")
    two.add_argument("bundle", type=Path)
    two.add_argument("diffraction", type=Path, help=".npy of (N, N), (batch, N, N) or (batch, C, N, N) amplitudes")
    two.add_argument("-o", "--out", type=Path, required=True, help=".npy, complex64")
    two.add_argument("--input-scale", type=float)
    _precision(two)
    _device(two)
    _cuda_graph(two)

    three = commands.add_parser("check", help="repeat the parity verdict on this host, from golden.npz")
    three.add_argument("bundle", type=Path)
    three.add_argument("--json", action="store_true", help="print JSON for machines")
    _device(three)

    five = commands.add_parser(
        "tune", help="find the fastest batch and threads for a model on this host, and remember them"
    )
    five.add_argument("bundle", type=Path)
    five.add_argument("--rounds", type=_positive, default=7, help="how often each setting has its turn (7)")
    five.add_argument("--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto")
    five.add_argument("--json", action="store_true", help="print JSON for machines")

    four = commands.add_parser("doctor", help="say what this host can do and what to install")
    four.add_argument("--json", action="store_true", help="print JSON for machines")
    return top


def _device(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto", help="auto: CUDA where it truly works"
    )
    command.add_argument("--threads", type=_positive, help="CPU threads (what this process may use)")


def _cuda_graph(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cuda-graph", action="store_true", help="run each batch as one CUDA graph; an error where there is no CUDA"
    )


def _precision(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--precision",
        choices=("float32", "auto"),
        default="float32",
        help="auto: the bundle's variant in reduced precision, where its budget is kept on this host and scan",
    )


def _scan_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what a scan file may leave open")
    domain = group.add_mutually_exclusive_group()
    domain.add_argument(
        "--amplitude", dest="domain", action="store_const", const="amplitude", help="patterns are amplitudes"
    )
    domain.add_argument(
        "--intensity", dest="domain", action="store_const", const="intensity", help="patterns are intensities (counts)"
    )
    group.add_argument("--axis-order", choices=("nhw", "hwn"), help="axes of the patterns")
    group.add_argument("--patterns-key", help="name of the patterns in the file")
    group.add_argument("--x-key", help="name of the positions along columns")
    group.add_argument("--y-key", help="name of the positions along rows")
    group.add_argument("--probe-key", help="name of the probe")
    group.add_argument("--positions", type=Path, help="file that has the positions: a Ptychodus product or an NPZ")
    group.add_argument(
        "--position-unit", choices=("px", "m", "um"), help="unit of the positions; px are the object's pixels"
    )
    group.add_argument("--pixel-size-m", type=float, help="size of the object's pixels, metres")
    group.add_argument("--positions-of", choices=("beam", "sample"), help="whose motion the positions are")
    fit = group.add_mutually_exclusive_group()
    for how, text in (
        ("crop", "cut patterns to the model's size"),
        ("pad", "pad them with zeros"),
        ("bin", "add up blocks of pixels"),
    ):
        fit.add_argument(f"--{how}", dest="fit", action="store_const", const=how, help=text)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def _reconstruct(arguments: argparse.Namespace) -> int:
    import ptycho_runtime
    from ptycho_runtime.image.products import check_suffix, write_product
    from ptycho_runtime.scan.read import ReadOptions, read_scan

    check_suffix(arguments.out)
    if arguments.input_scale is not None and not 0 < arguments.input_scale < 1e30:
        raise ReconstructionError(f"--input-scale is {arguments.input_scale}; expected a positive number")
    model = ptycho_runtime.open(
        arguments.bundle,
        arguments.device,
        arguments.batch,
        threads=arguments.threads,
        cuda_graph=arguments.cuda_graph,
        precision=arguments.precision,
    )
    options = ReadOptions(
        domain=arguments.domain,
        axis_order=arguments.axis_order,
        patterns_key=arguments.patterns_key,
        x_key=arguments.x_key,
        y_key=arguments.y_key,
        probe_key=arguments.probe_key,
        position_unit=arguments.position_unit,
        pixel_size_m=arguments.pixel_size_m,
        position_sign={None: None, "beam": 1, "sample": -1}[arguments.positions_of],
        fit=arguments.fit,
        positions_file=arguments.positions,
    )
    scan = read_scan(arguments.scan, model.export.N, options)
    _say(f"{scan.name}: {len(scan)} patterns of {scan.size_px} px, {scan.domain}; device {model.patches.device}")
    if model.patches.note:
        _say(model.patches.note)
    if model.tuned is not None:
        _say(f"batch {model.tuned.batch}, {model.tuned.threads} threads, as tuned on this host")
    for reason, frames in scan.skipped.items():
        _say(f"skipped {len(frames)}: {reason}: {', '.join(map(str, frames[:20]))}{'…' if len(frames) > 20 else ''}")
    with _bar(arguments.quiet) as progress:
        result = model.reconstruct(
            scan,
            quality=not arguments.no_quality,
            scale=arguments.input_scale,
            crop_px=arguments.crop_px,
            weighting=arguments.weighting,
            progress=progress,
        )
    if result.note and result.note != model.patches.note:
        _say(result.note)
    written = write_product(result, arguments.out)
    rows, columns = result.object.shape
    _say(
        f"{result.done} of {result.groups} groups in {result.seconds:.2f} s ({result.done / max(result.seconds, 1e-9):.0f}/s, "
        f"{100 * result.session_seconds / max(result.seconds, 1e-9):.0f} % in the session); first run {result.first_run_seconds:.3f} s; "
        f"input_scale_factor {result.input_scale_factor:.6g}"
    )
    if result.quality is not None:
        _say(f"residual: {result.quality.flagged.sum()} patterns far off (above {result.quality.limit:.3f})")
    print(f"{'partial ' if result.partial else ''}object {rows} x {columns} px: {', '.join(map(str, written))}")
    return EXIT_PARTIAL if result.partial else 0


def _predict(arguments: argparse.Namespace) -> int:
    import numpy as np

    import ptycho_runtime

    try:
        diffraction = np.load(arguments.diffraction, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ReconstructionError(f"{arguments.diffraction}: cannot be read as .npy ({error})") from error
    start = time.perf_counter()
    model = ptycho_runtime.open(
        arguments.bundle,
        arguments.device,
        threads=arguments.threads,
        cuda_graph=arguments.cuda_graph,
        precision=arguments.precision,
    )
    patches = model.predict(diffraction, arguments.input_scale)
    for note in (model.patches.note, model.variant()[1]):
        if note:
            _say(note)
    np.save(arguments.out, patches)
    print(
        f"{arguments.out}: {patches.shape} complex64 on {model.patches.device}, {time.perf_counter() - start:.3f} s from opening the bundle"
    )
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from ptycho_runtime.check import check_host, raise_unless_passed
    from ptycho_runtime.export.bundle import open_export

    export = open_export(arguments.bundle)
    rows = check_host(export, arguments.device)
    if arguments.json:
        print(json.dumps([{**vars(row), "passed": row.passed} for row in rows], indent=1))
    else:
        for row in rows:
            print(
                f"{row.graph:20s} {row.output:22s} {row.device:8s} max abs {row.max_abs:.1e} (allowed {row.allowed_max_abs:.1e})  "
                f"rel. L2 {row.rel_l2:.1e} (allowed {row.allowed_rel_l2:.1e})  {row.verdict}"
            )
    raise_unless_passed(rows, export.path.name)
    return 0


def _tune(arguments: argparse.Namespace) -> int:
    from ptycho_runtime.engine.tune import GRAPH, choose, remember, tune
    from ptycho_runtime.export.bundle import open_export

    export = open_export(arguments.bundle)
    if GRAPH not in export.graphs:
        raise NotExportedError(f"{export.path.name}: holds no {GRAPH} graph, which tuning measures")
    device, trials = tune(export, arguments.device, rounds=arguments.rounds, progress=_say)
    setting = choose(trials)
    try:
        path = remember(export, device, setting)
    except OutputError as error:
        raise OutputError(f"the setting cannot be kept: {error}, or set XDG_CACHE_HOME to one") from error
    best = max(trial.groups_per_s for trial in trials)
    if arguments.json:
        rows = [{**vars(t.setting), "of_fastest": t.groups_per_s / best, "spread": t.spread} for t in trials]
        print(json.dumps({"device": device, "chosen": vars(setting), "trials": rows, "kept_in": str(path)}, indent=1))
        return 0
    print(f"{'batch':>5s} {'threads':>8s} {'of the fastest':>15s} {'spread':>7s}")
    for trial in trials:
        mark = "  chosen" if trial.setting == setting else ""
        print(
            f"{trial.setting.batch:5d} {trial.setting.threads:8d} {100 * trial.groups_per_s / best:13.0f} % {100 * trial.spread:5.0f} %{mark}"
        )
    print(f"batch {setting.batch}, {setting.threads} threads on {device}, kept in {path}")
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from ptycho_runtime import doctor

    facts = doctor.report()
    if arguments.json:
        print(json.dumps(facts, indent=1))
    else:
        for topic, text in facts.items():
            print(f"{topic:12s} {text}")
    return 0


class _bar:
    """A progress bar with rate and remaining time on standard error; a number now and then where that is no terminal."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.bar: Any = None

    def __enter__(self) -> Callable[[int, int], None] | None:
        return None if self.quiet else self.show

    def show(self, done: int, total: int) -> None:
        if self.bar is None:
            from tqdm import tqdm

            self.bar = tqdm(
                total=total, unit="pattern", file=sys.stderr, mininterval=0.5 if sys.stderr.isatty() else 10.0
            )
        self.bar.update(done - self.bar.n)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.close()


def _say(text: str) -> None:
    print(f"ptycho-runtime: {' '.join(text.split())}", file=sys.stderr)


def _report_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if os.environ.get(_TRACEBACK):
        sys.__excepthook__(kind, error, trace)
        return
    _say(
        f"{kind.__name__}: {error}; this is a bug in ptycho-runtime; run again with {_TRACEBACK}=1 and report what it prints"
    )


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code; an error with a known cause is one line."""
    parsed = parser().parse_args(arguments)
    commands = {"reconstruct": _reconstruct, "predict": _predict, "check": _check, "tune": _tune, "doctor": _doctor}
    try:
        return commands[parsed.command](parsed)
    except PtychoExportError as error:
        _say(str(error))
        return error.exit_code
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        _say(str(error))
        return 2
    except KeyboardInterrupt:
        _say("stopped; nothing was finished, nothing is written")
        return EXIT_PARTIAL


def main() -> None:
    """Run the command line of this process; what no command foresees ends in one line and exit code 1."""
    sys.excepthook = _report_bug
    sys.exit(run())
