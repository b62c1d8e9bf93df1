"""`reconstruct` in parts: one of them here, all of them on a Dask cluster, or a script that has Slurm run them."""

from __future__ import annotations

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ptycho_runtime.cli.options import chosen_image, chosen_run, positive, read_files, read_options, voice_options
from ptycho_runtime.cli.terminal import ProgressBar, say, show
from ptycho_runtime.errors import ReconstructionError

if TYPE_CHECKING:
    from ptycho_runtime.many.plan import Plan

DEFAULT_PARTS = 64
DEFAULT_CHUNK = 4096


def parts_options(command: argparse.ArgumentParser) -> None:
    """Add what makes `reconstruct` do one of many parts, or all of them elsewhere."""
    group = command.add_argument_group("in parts (see docs/many.md)")
    group.add_argument("--plan", type=Path, metavar="plan.h5", help="what prepare wrote; goes with --part")
    group.add_argument(
        "--part", type=which, metavar="K/N", help="do the K-th of N parts; --out is the file that merge takes"
    )
    group.add_argument(
        "--slurm", action="store_true", help="print a script that has Slurm prepare, do all parts and merge them"
    )
    dask_option(group)
    group.add_argument(
        "--chunk", type=positive, metavar="N", help=f"with --dask: groups of patterns a task ({DEFAULT_CHUNK})"
    )
    group.add_argument("--parts", type=positive, metavar="N", help=f"with --slurm: how many ({DEFAULT_PARTS})")


def dask_option(command: argparse._ActionsContainer) -> None:
    """Add the address of a Dask scheduler."""
    command.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="run on a Dask cluster, tcp://host:8786, or on N processes of this host, local:N",
    )


def which(text: str) -> tuple[int, int]:
    """Return a part, `7/64`."""
    number, slash, count = text.partition("/")
    if not slash or not number.isdecimal() or not count.isdecimal() or not 1 <= int(number) <= int(count) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is no part such as 7/64")
    return int(number), int(count)


def in_parts(arguments: argparse.Namespace) -> bool:
    """Say whether any of `parts_options` was given."""
    return bool(
        arguments.plan or arguments.part or arguments.slurm or arguments.parts or arguments.dask or arguments.chunk
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for of `parts_options`; returns the exit code."""
    if arguments.slurm:
        return _print_script(arguments)
    if arguments.dask:
        return _run_on_cluster(arguments)
    if arguments.plan is None or arguments.part is None:
        raise ReconstructionError(
            "--plan FILE and --part K/N go together; prepare writes the plan, and --parts goes with --slurm"
        )
    return _run_part(arguments)


def _run_part(arguments: argparse.Namespace) -> int:
    import ptycho_runtime
    from ptycho_runtime.many.hdf5 import check_place
    from ptycho_runtime.many.parts import Which, is_done, run_part
    from ptycho_runtime.many.plan import open_plan

    part = Which(*arguments.part)
    plan = open_plan(arguments.plan)
    _refuse_other_options(arguments, plan)
    inputs = {"bundle": arguments.bundle, "scan": arguments.scan, "plan": arguments.plan}
    check_place(arguments.out, "part", inputs, force=arguments.force)
    if is_done(arguments.out, plan, part):
        show(f"{arguments.out}: part {part} is done already")
        return 0
    run_as = replace(plan.run, device=arguments.device, cuda_graph=arguments.cuda_graph)
    with ptycho_runtime.open(
        arguments.bundle, run_as, model_domain=plan.model_domain, sha256=arguments.sha256
    ) as model:
        if model.patches.note:
            say(model.patches.note)
        with ProgressBar() as progress:
            header = run_part(plan, part, model, arguments.out, arguments.scan, progress)
    show(
        f"{arguments.out}: part {part}, groups {header.first} to {header.stop - 1}, in {header.seconds:.2f} s on {header.device}"
    )
    return 0


def _refuse_other_options(arguments: argparse.Namespace, plan: Plan) -> None:
    """Raise `ReconstructionError` where options were given that are neither the defaults nor the plan's."""
    from ptycho_runtime.engine.options import RunOptions
    from ptycho_runtime.image.options import ReconstructOptions
    from ptycho_runtime.scan.options import ReadOptions

    run_as = chosen_run(arguments)
    given = {
        "how the scan is read": (read_options(arguments), plan.read, ReadOptions()),
        "how the image is made": (chosen_image(arguments), plan.image, ReconstructOptions()),
        "--batch": (run_as.batch, plan.run.batch, None),
        "--threads": (run_as.threads, plan.run.threads, None),
        "--engine": (run_as.engine, plan.run.engine, None),
        "--precision": (run_as.precision, plan.run.precision, RunOptions().precision),
        "--model-domain": (arguments.model_domain, plan.model_domain, None),
    }
    other = [what for what, (asked, planned, default) in given.items() if asked not in (planned, default)]
    if other:
        raise ReconstructionError(
            f"{plan.path.name} was made with other options ({', '.join(other)}); give them to prepare"
        )


def _run_on_cluster(arguments: argparse.Namespace) -> int:
    from ptycho_runtime.cli.merge import merged
    from ptycho_runtime.export.bundle import open_export
    from ptycho_runtime.image.products.target import check_target
    from ptycho_runtime.many.cluster import Cluster, PartsWork, run_parts, share_of_threads

    if arguments.plan or arguments.part or arguments.parts or "flagged" in arguments.exclude:
        raise ReconstructionError(
            "--dask makes a plan and its parts itself; leave out --plan, --part, --parts and --exclude flagged"
        )
    target = check_target(
        arguments.out.absolute(), read_files(arguments), force=arguments.force, figure=arguments.figure
    )
    if not arguments.scan.is_file():
        raise FileNotFoundError(f"{arguments.scan}: no such scan")
    work = PartsWork(
        bundle=arguments.bundle.absolute(),
        bundle_sha256=open_export(arguments.bundle, arguments.sha256).sha256,
        scan=arguments.scan.absolute(),
        folder=target.path.with_name(f"{target.path.name}.parts"),
        patterns=arguments.chunk or DEFAULT_CHUNK,
        model_domain=arguments.model_domain,
        run=share_of_threads(arguments.dask, chosen_run(arguments)),
        read=read_options(arguments),
        image=chosen_image(arguments),
    )
    with Cluster(arguments.dask) as cluster:
        with ProgressBar() as progress:
            paths = run_parts(cluster, work, progress)
        # Where the parts are near; what comes back is a few lines.
        found = cluster.result("merge", merged, paths, target, work.plan)
    for path in (*paths, work.plan):
        path.unlink()
    with contextlib.suppress(OSError):  # what else lies there is not ours
        work.folder.rmdir()
    code: int = found.show(as_json=arguments.json, strict=arguments.strict)
    return code


def _print_script(arguments: argparse.Namespace) -> int:
    from ptycho_runtime.cli import prepare
    from ptycho_runtime.many.slurm import Job, script

    if arguments.out is None:
        raise ReconstructionError("where the result goes is not said; give -o FILE")
    if arguments.plan or arguments.part or arguments.dask or arguments.chunk:
        raise ReconstructionError(
            "--slurm makes a plan and its parts itself; leave out --plan, --part, --dask and --chunk"
        )
    # What belongs to the end alone; all else is for prepare, and said again to each part.
    stage = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("-o", "--out", "--parts", "--figure", "--timeout"):
        stage.add_argument(option)
    for option in ("--slurm", "--force", "--strict", "--json", "--dry-run"):
        stage.add_argument(option, action="store_true")
    voice_options(stage)
    last, rest = stage.parse_known_args(arguments.given)
    grammar = argparse.ArgumentParser(prog="ptycho-runtime prepare")
    prepare.options(grammar)
    grammar.parse_args([*rest, "-o", "plan.h5"])
    ending = [f"--figure={last.figure}"] if last.figure else []
    ending += [option for option in ("--force", "--strict") if vars(last)[option[2:]]]
    job = Job(arguments.bundle, arguments.scan, arguments.out, rest, ending, arguments.parts or DEFAULT_PARTS)
    show(script(job).rstrip())
    return 0
