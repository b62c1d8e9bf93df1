"""`ptycho-runtime replay`: a scan as a detector and its stages would send it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ptycho_runtime.cli.options import examples, read_options, scan_options
from ptycho_runtime.cli.terminal import ProgressBar, say, show
from ptycho_runtime.cli.time_limit import timeout_option


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("replay", help="serve a scan over EPICS PV Access, as a detector would")
    command.add_argument("scan", type=Path, help="PtychoPINN NPZ, CXI, HDF5 or Ptychodus diffraction file")
    command.add_argument("prefix", help="pva://PREFIX: of PREFIX:image, PREFIX:positions and PREFIX:end")
    command.add_argument("--fps", type=float, default=100.0, help="frames a second; 0: as fast as it goes (100)")
    command.add_argument(
        "--lose", type=share, default=0.0, metavar="SHARE", help="frames that are never sent: 1%% or 0.01"
    )
    command.add_argument("--reorder", type=int, default=0, help="frames come up to so many places from their own")
    command.add_argument("--late-positions", type=int, default=0, help="positions come so many frames after theirs")
    command.add_argument("--duplicate", action="store_true", help="some frames are sent twice")
    command.add_argument("--codec", choices=("lz4", "bslz4", "blosc"), default="", help="compress frames")
    command.add_argument("--port", type=int, help="TCP port on 127.0.0.1, 0 for a free one (EPICS's settings)")
    command.add_argument("--once", action="store_true", help="end when all is sent, in place of staying")
    command.add_argument(
        "--json", action="store_true", help="print JSON for machines: a line when it serves, one when all is sent"
    )
    timeout_option(command)
    scan_options(command)
    examples(
        command,
        """
        ptycho-runtime replay scan.npz pva://SIM --fps 200 --once
        ptycho-runtime replay scan.npz pva://SIM --lose 1% --reorder 3
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    from ptycho_runtime.live.replay import Faults, Replay
    from ptycho_runtime.scan.read import read_scan

    faults = Faults(arguments.lose, arguments.reorder, arguments.late_positions, arguments.duplicate)
    with (
        read_scan(arguments.scan, None, read_options(arguments)) as scan,
        Replay(scan, arguments.prefix, codec=arguments.codec, port=arguments.port) as server,
    ):
        where = {"serving": server.prefix, "port": server.port, "frames": len(scan)}
        plain = f"serving {server.prefix}:image and {server.prefix}:positions on port {server.port}"
        show(json.dumps(where) if arguments.json else plain)
        server.wait_for_client()
        with ProgressBar() as progress:
            server.send(arguments.fps, faults, progress)
        if arguments.json:
            show(json.dumps({"sent": server.sent, "frames": len(scan)}))
        else:
            say(f"sent {server.sent} frames of {len(scan)}")
        if arguments.once:
            server.linger()
        else:
            server.wait()
    return 0


def share(text: str) -> float:
    """Return a share, `1%` or `0.01`."""
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 1% or 0.01")
    return value
