"""Options that several commands share, and what their texts mean."""

from __future__ import annotations

import glob
from pathlib import Path

import click

from ptycho_torch.bundle import resolve

MAX_BATCH = 4096

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")
batches = click.option(
    "--batches",
    default="1,3,16,33",
    show_default=True,
    help="Batch sizes of the parity check, comma-separated; 1 and 5 are added where they would prove too little.",
)
require = click.option(
    "--require",
    multiple=True,
    type=click.Choice(["cuda", "tensorrt"]),
    help="Fail with exit code 4 unless this device took part.",
)
scan = click.option(
    "--scan",
    type=click.Path(path_type=Path),
    help="Any scan that ptycho-runtime reads; its patterns, positions and probe are used in place of simulated ones.",
)
budget = click.option(
    "--budget",
    help="What variants in reduced precision may err on held-back patterns of the scan, such as phase=0.01rad,amp=1%.",
)
run_stored_torchscript = click.option(
    "--run-stored-torchscript",
    is_flag=True,
    help="Run a stored TorchScript that is not what the weights give here, in a process without files and network.",
)
architecture = click.option(
    "--architecture", type=click.Path(path_type=Path), help="JSON file that settles what the bundle leaves open."
)
ignore_extra = click.option(
    "--ignore-extra",
    is_flag=True,
    help="Leave out what a checkpoint's state_dict holds beside the model, such as averaged weights or metrics.",
)
params = click.option(
    "--params", type=click.Path(path_type=Path), help="JSON file with the parameters that a checkpoint lacks."
)


class _FormerlyBisect(click.Option):
    """An option whose older name still works but is not shown."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the line of the help without the older name."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0].replace(", --bisect", ""), record[1])


layers = click.option(
    "--layers",
    "--bisect",
    "layers",
    cls=_FormerlyBisect,
    is_flag=True,
    help="Compare layer by layer even if parity passes; where it fails that is done anyway.",
)


def expand(arguments: tuple[str, ...]) -> list[str]:
    """Return the paths that arguments name; a pattern stands for what it matches, in sorted order."""
    paths: list[str] = []
    for argument in arguments:
        is_pattern = glob.has_magic(argument) and not Path(argument).exists()
        matches = sorted(glob.glob(argument)) if is_pattern else []  # noqa: PTH207  # absolute patterns too
        paths += matches or [argument]
    return list(dict.fromkeys(paths))


def output_folders(paths: list[str], out: Path | None) -> dict[str, Path]:
    """Return the folder of each bundle's results where it is not the default one.

    Several bundles get a folder each; equal names (every run calls its bundle `wts.h5`) are told apart by the folder they lie in.
    """
    if len(paths) == 1:
        return {} if out is None else {paths[0]: out}
    names: dict[str, tuple[str, str]] = {}
    for path in paths:
        try:
            actual, _ = resolve(path)
        except (OSError, ValueError):
            continue  # said when it is exported
        name = actual.name.removesuffix(".zip").removesuffix(".ckpt")
        names[path] = name, f"{actual.resolve().parent.name}-{name}"
    plain = [name for name, _ in names.values()]
    longer = [name for _, name in names.values()]
    root = out if out is not None else Path("artifacts")
    folders: dict[str, Path] = {}
    for index, (path, (name, long)) in enumerate(names.items()):
        unique = name if plain.count(name) == 1 else long if longer.count(long) == 1 else f"{long}-{index + 1}"
        folders[path] = root / unique
    return folders


def batch_sizes(text: str) -> tuple[int, ...]:
    """Return the batch sizes of a comma-separated list; raises `click.BadParameter` for anything else."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or not all(1 <= size <= MAX_BATCH for size in sizes):
        raise click.BadParameter(
            f"{text!r}; expected whole numbers from 1 to {MAX_BATCH}, comma-separated", param_hint="--batches"
        )
    return sizes
