"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final, Literal

from ptycho_runtime.engine.options import ENGINES, RunOptions
from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.image.options import ReconstructOptions
from ptycho_runtime.scan.options import ReadOptions, Sign

SIGNS: Final[dict[str | None, Sign]] = {"beam": 1, "sample": -1}


def examples(command: argparse.ArgumentParser, text: str) -> None:
    """Let a command's help end with examples: command lines, each with a comment of what it is for."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    lines = "\n".join(f"  {line.strip()}" for line in text.strip().splitlines())
    command.epilog = f"examples:\n{lines}"


def voice_options(command: argparse.ArgumentParser) -> None:
    """Add what decides how much a command says, and where."""
    group = command.add_argument_group("what is said")
    much = group.add_mutually_exclusive_group()
    much.add_argument("-v", "--verbose", action="store_true", help="say more: versions, times, what was given")
    much.add_argument(
        "-q",
        "--quiet",
        action="count",
        default=0,
        help="no progress; twice: nothing but the answer, warnings and errors",
    )
    group.add_argument(
        "--log-file", type=Path, metavar="FILE", help="append all that is said to a log, each line with its time"
    )


def device_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "tensorrt"), default="auto", help="auto: CUDA where it truly works"
    )
    command.add_argument("--threads", type=positive, help="CPU threads (what this process may use)")


def figure_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--figure",
        type=Path,
        metavar="FILE",
        help="draw a figure for a paper too: .png, or .svg and .pdf with matplotlib",
    )


def sha256_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--sha256", metavar="HEX", help="what the bundle has to have, as sha256sum prints it; another is refused"
    )


def cuda_graph_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cuda-graph", action="store_true", help="run each batch as one CUDA graph; an error where there is no CUDA"
    )


def model_domain_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--model-domain",
        choices=("amplitude", "counts"),
        help="what the model is fed, in place of what the export's record says (--amplitude, --intensity speak of the scan)",
    )


def engine_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--engine",
        choices=ENGINES,
        help="what runs float32, openvino on the CPU alone (as tuned, else onnxruntime); by name, an error where it cannot",
    )


def precision_option(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--precision",
        choices=("float32", "auto"),
        default="float32",
        help="auto: the bundle's variant in reduced precision, where its budget is kept on this host and scan",
    )


def run_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `engine.options.RunOptions`; `chosen_run` returns what they were given."""
    device_options(command)
    cuda_graph_option(command)
    command.add_argument("--batch", type=positive, help="groups of patterns per run (as tuned, else 16, on CUDA 256)")
    engine_option(command)
    precision_option(command)


def chosen_run(arguments: argparse.Namespace) -> RunOptions:
    """Return what `run_options` were given."""
    return RunOptions(
        device=arguments.device,
        batch=arguments.batch,
        threads=arguments.threads,
        cuda_graph=arguments.cuda_graph,
        precision=arguments.precision,
        engine=arguments.engine,
    )


def image_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `image.options.ReconstructOptions`, which `chosen_image` returns, and `--model-domain`."""
    command.add_argument(
        "--input-scale", type=float, help="input_scale_factor, in place of the command computed from the scan"
    )
    command.add_argument("--crop-px", type=positive, help="side of the middle of each patch that is used (N/2 − 4)")
    command.add_argument(
        "--weighting",
        choices=("auto", "probe", "window"),
        default="auto",
        help="trust in each pixel of a patch (auto: the probe's intensity where known)",
    )
    model_domain_option(command)
    command.add_argument("--no-quality", action="store_true", help="leave out each pattern's residual")
    command.add_argument(
        "--no-object-scales",
        action="store_true",
        help="leave the object's real and imaginary part as a model of counts gives them, without fitting their factors",
    )
    command.add_argument("--frc", action="store_true", help="compare even and odd patterns by Fourier ring correlation")


def chosen_image(arguments: argparse.Namespace) -> ReconstructOptions:
    """Return what `image_options` were given; raises `ReconstructionError` for a scale that cannot be."""
    if arguments.input_scale is not None and not 0 < arguments.input_scale < 1e30:
        raise ReconstructionError(f"--input-scale is {arguments.input_scale}; expected a positive number")
    return ReconstructOptions(
        scale=arguments.input_scale,
        crop_px=arguments.crop_px,
        weighting=arguments.weighting,
        quality=not arguments.no_quality,
        frc=arguments.frc,
        object_scales=not arguments.no_object_scales,
    )


def domain_options(command: argparse._ActionsContainer, what: str) -> None:
    """Add what patterns, or frames, are."""
    domain = command.add_mutually_exclusive_group()
    for name, text in (("amplitude", "amplitudes"), ("intensity", "intensities (counts)")):
        domain.add_argument(f"--{name}", dest="domain", action="store_const", const=name, help=f"{what} are {text}")


def fit_options(command: argparse._ActionsContainer, what: str) -> None:
    """Add how patterns, or frames, of another size become the model's."""
    fit = command.add_mutually_exclusive_group()
    for how, text in (
        ("crop", f"cut {what} to the model's size"),
        ("pad", "pad them with zeros"),
        ("bin", "add up blocks of pixels"),
    ):
        fit.add_argument(f"--{how}", dest="fit", action="store_const", const=how, help=text)


def scan_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what a scan file may leave open")
    domain_options(group, "patterns")
    group.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="options of a beamline; what stands here too counts more"
    )
    group.add_argument("--axis-order", choices=("nhw", "hwn"), help="axes of the patterns")
    group.add_argument("--patterns-key", help="name of the patterns in the file")
    group.add_argument("--x-key", help="name of the positions along columns")
    group.add_argument("--y-key", help="name of the positions along rows")
    group.add_argument("--probe-key", help="name of the probe")
    group.add_argument("--positions", type=Path, help="file that has the positions: a Ptychodus product or an NPZ")
    group.add_argument(
        "--position-unit",
        choices=("px", "m", "mm", "um", "nm", "angstrom"),
        help="unit of the positions; px are pixels of the object as recorded, before --crop, --pad or --bin",
    )
    group.add_argument("--pixel-size-m", type=float, help="size of the image's pixels, metres")
    group.add_argument("--positions-of", choices=("beam", "sample"), help="whose motion the positions are")
    group.add_argument(
        "--flip-x", action="store_true", help="positions run the other way: left and right change places"
    )
    group.add_argument(
        "--flip-y", action="store_true", help="positions run the other way: top and bottom change places"
    )
    group.add_argument("--swap-xy", action="store_true", help="positions along columns are along rows, and the reverse")
    group.add_argument(
        "--centre",
        type=centre,
        metavar="ROW,COL|auto",
        help="zero frequency in the patterns as stored; auto: the centre of the mean pattern",
    )
    group.add_argument("--mask", type=Path, help="bad pixels, not zero where bad: .npy, .npz or HDF5")
    group.add_argument(
        "--exclude",
        type=frame_numbers,
        default=(),
        metavar="FRAMES",
        help="leave frames out of scale and image, by number (3,17,20-29), or those that a first image flags (flagged)",
    )
    group.add_argument("--patterns", type=row_range, default=(0, None), metavar="FROM:TO", help="some of the patterns")
    group.add_argument("--every", type=positive, default=1, help="every so many of them")
    group.add_argument(
        "--incomplete", action="store_true", help="take the frames that are there, of a file that lacks some still"
    )
    group.add_argument("--follow-links", action="store_true", help="let HDF5 links lead out of the scan's folder")
    fit_options(group, "patterns")


def read_files(arguments: argparse.Namespace) -> dict[str, Path | None]:
    """Return the files that a command reads which takes a bundle, a scan and `scan_options`, by what they are: none is overwritten."""
    return {
        "bundle": arguments.bundle,
        "scan": arguments.scan,
        "positions file": arguments.positions,
        "mask": arguments.mask,
        "log": arguments.log_file,
    }


def read_options(arguments: argparse.Namespace) -> ReadOptions:
    """Return what `scan_options` were given."""
    return ReadOptions(
        domain=arguments.domain,
        axis_order=arguments.axis_order,
        patterns_key=arguments.patterns_key,
        x_key=arguments.x_key,
        y_key=arguments.y_key,
        probe_key=arguments.probe_key,
        position_unit=arguments.position_unit,
        pixel_size_m=arguments.pixel_size_m,
        position_sign=SIGNS.get(arguments.positions_of),
        fit=arguments.fit,
        positions_file=arguments.positions,
        centre=arguments.centre,
        mask_file=arguments.mask,
        flip_x=arguments.flip_x,
        flip_y=arguments.flip_y,
        swap_xy=arguments.swap_xy,
        exclude=tuple(number for number in arguments.exclude if isinstance(number, int)),
        rows=arguments.patterns,
        every=arguments.every,
        follow_links=arguments.follow_links,
        incomplete=arguments.incomplete,
    )


def centre(text: str) -> tuple[float, float] | Literal["auto"]:
    """Return a zero frequency, `ROW,COL` or `auto`."""
    if text == "auto":
        return "auto"
    try:
        row, column = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither ROW,COL nor auto") from None
    if not (0 <= row < 1e6 and 0 <= column < 1e6):
        raise argparse.ArgumentTypeError(f"{text!r} is no place in a pattern")
    return row, column


def frame_numbers(text: str) -> tuple[int | Literal["flagged"], ...]:
    """Return frame numbers, `3,17,20-29`, and `flagged` where it is among them."""
    numbers: list[int | Literal["flagged"]] = []
    for part in text.split(","):
        if part.strip() == "flagged":
            numbers.append("flagged")
            continue
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        decimal = first.isdecimal() and last.isdecimal() and max(len(first), len(last)) < 16
        if not decimal or not 0 <= int(last) - int(first) <= 10**6:
            raise argparse.ArgumentTypeError(f"{part.strip()!r} is no frame number, and no range such as 20-29")
        numbers += range(int(first), int(last) + 1)
    return tuple(dict.fromkeys(numbers))


def row_range(text: str) -> tuple[int, int | None]:
    """Return a range of patterns: `0:2000`, `500:`, `:100`."""
    first, colon, last = text.partition(":")
    if not colon or not (first or "0").isdecimal() or not (last or "0").isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no range of patterns such as 0:2000")
    return int(first or 0), int(last) if last else None


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value
