"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path


def device_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto", help="auto: CUDA where it truly works"
    )
    command.add_argument("--threads", type=positive, help="CPU threads (what this process may use)")


def cuda_graph_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cuda-graph", action="store_true", help="run each batch as one CUDA graph; an error where there is no CUDA"
    )


def precision_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--precision",
        choices=("float32", "auto"),
        default="float32",
        help="auto: the bundle's variant in reduced precision, where its budget is kept on this host and scan",
    )


def scan_options(command: argparse.ArgumentParser) -> None:
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


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value
