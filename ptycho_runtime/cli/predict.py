"""`ptycho-runtime predict`: object patches of a few patterns."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ptycho_runtime.cli.options import cuda_graph_option, device_options, examples, precision_option, sha256_option
from ptycho_runtime.cli.terminal import say, show
from ptycho_runtime.cli.time_limit import timeout_option
from ptycho_runtime.engine.options import ENGINES


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("predict", help="object patches of a few patterns, from .npy to .npy")
    command.add_argument("bundle", type=Path)
    command.add_argument("diffraction", type=Path, help=".npy of (N, N), (batch, N, N) or (batch, C, N, N) amplitudes")
    command.add_argument("-o", "--out", type=Path, required=True, help=".npy, complex64")
    command.add_argument(
        "--force", action="store_true", help="overwrite what is at --out: nothing in an .npy tells whose it is"
    )
    command.add_argument(
        "--input-scale", type=float, help="input_scale_factor, in place of the frozen one or that of these patterns"
    )
    command.add_argument("--json", action="store_true", help="print JSON for machines")
    precision_option(command)
    # A few patterns are done before another engine has compiled the graph.
    command.add_argument("--engine", choices=ENGINES, default="onnxruntime", help="what runs float32 (onnxruntime)")
    device_options(command)
    cuda_graph_option(command)
    sha256_option(command)
    timeout_option(command)
    examples(
        command,
        """
        ptycho-runtime predict wts.h5.zip patterns.npy -o patches.npy
        ptycho-runtime predict wts.h5.zip patterns.npy -o patches.npy --input-scale 0.032 --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    import numpy as np

    import ptycho_runtime
    from ptycho_runtime.export.npz import read_npy
    from ptycho_runtime.files import replacing
    from ptycho_runtime.image.products.target import check_patches_target

    inputs = {"bundle": arguments.bundle, "diffraction": arguments.diffraction}
    check_patches_target(arguments.out, inputs, force=arguments.force)
    diffraction = read_npy(arguments.diffraction, str(arguments.diffraction))
    start = time.perf_counter()
    with ptycho_runtime.open(
        arguments.bundle,
        sha256=arguments.sha256,
        device=arguments.device,
        threads=arguments.threads,
        cuda_graph=arguments.cuda_graph,
        precision=arguments.precision,
        engine=arguments.engine,
    ) as model:
        patches = model.predict(diffraction, arguments.input_scale)
        device = model.patches.device
        for note in (model.patches.note, model.variant()[1]):
            if note:
                say(note)
    with replacing(arguments.out) as file:
        np.save(file, patches)
    seconds = time.perf_counter() - start
    if arguments.json:
        answer = {"written": str(arguments.out), "shape": patches.shape, "dtype": "complex64", "device": device}
        show(json.dumps({**answer, "seconds": seconds}, indent=1))
    else:
        show(f"{arguments.out}: {patches.shape} complex64 on {device}, {seconds:.3f} s from opening the bundle")
    return 0
