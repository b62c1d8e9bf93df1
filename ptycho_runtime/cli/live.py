"""`ptycho-runtime live`: frames in, image out."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ptycho_runtime.cli.options import (
    centre,
    chosen_image,
    cuda_graph_option,
    device_options,
    domain_options,
    engine_option,
    examples,
    fit_options,
    image_options,
    positive,
    sha256_option,
)
from ptycho_runtime.cli.terminal import EXIT_STOPPED, complain, say, show
from ptycho_runtime.cli.time_limit import timeout_option
from ptycho_runtime.errors import PtychoExportError, ReconstructionError, exit_code_of

if TYPE_CHECKING:
    from ptycho_runtime.api import Reconstructor
    from ptycho_runtime.image.products.target import Target
    from ptycho_runtime.live.inbox import Inbox
    from ptycho_runtime.live.run import LiveOptions, Outcome
    from ptycho_runtime.live.values import Positions, Source

SCHEME = "pva://"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser("live", help="turn a stream of frames into an image while it comes")
    command.add_argument("bundle", type=Path, help="exported bundle (.zip) or .onnx file")
    command.add_argument("source", help="pva://PREFIX:image, or an HDF5 file with --follow")
    command.add_argument("-o", "--out", type=Path, required=True, help="result, as of `reconstruct`")
    command.add_argument("--follow", action="store_true", help="the source is a file that is being written (SWMR)")
    stream = command.add_argument_group("the stream")
    stream.add_argument(
        "--positions",
        help="pva://PREFIX:positions, a plan.csv (id,x,y in pixels), or `attribute`: they come with the frames",
    )
    stream.add_argument(
        "--attributes", default="x,y", metavar="X,Y", help="names of the attributes that hold them (x,y)"
    )
    stream.add_argument(
        "--match", choices=("id", "time"), default="id", help="how frames and positions belong together (id)"
    )
    stream.add_argument("--tolerance-s", type=float, default=0.0, help="between their time stamps, with --match time")
    stream.add_argument("--frames", type=positive, help="that the scan has: it is over when all have come")
    stream.add_argument("--end", help="pva://PV of a number that is not 0 once the last frame was sent")
    stream.add_argument("--idle-s", type=float, default=10.0, help="without a frame: the scan is over (10)")
    stream.add_argument("--patterns-key", help="with --follow: name of the patterns")
    stream.add_argument("--x-key", default="xcoords", help="with --follow: name of x, pixels (xcoords)")
    stream.add_argument("--y-key", default="ycoords", help="with --follow: name of y, pixels (ycoords)")
    stream.add_argument(
        "--group-lag",
        type=positive,
        help="frames after which a frame's neighbours are final, on a raster a line and one",
    )
    domain_options(command, "frames")
    fit_options(command, "frames")
    command.add_argument("--centre", type=centre, metavar="ROW,COL", help="zero frequency in the frames")
    command.add_argument("--mask", type=Path, help="bad pixels, not zero where bad: .npy, .npz or HDF5")
    command.add_argument("--probe", type=Path, help="a scan file or Ptychodus product that has the probe")
    command.add_argument("--pixel-size-m", type=float, default=0.0, help="size of the image's pixels, metres")
    load = command.add_argument_group("load")
    load.add_argument("--overrun", choices=("lossless", "newest", "stop"), default="lossless",
                      help="frames faster than the session: keep all (lossless), prefer the newest, or stop")  # fmt: skip
    load.add_argument("--inbox", type=positive, help="frames that wait in memory (1024; 64 with newest)")
    load.add_argument(
        "--spool-bytes", type=positive, default=8 << 30, help="of the file for more, with lossless (8 GiB)"
    )
    load.add_argument("--spool-folder", type=Path, help="for that file")
    load.add_argument("--batch-window-s", type=float, default=0.1, help="a frame waits so long for others (0.1)")
    load.add_argument("--batch", type=positive, help="groups of frames per run (as tuned, else 16, on CUDA 256)")
    scale = command.add_argument_group("input_scale_factor: --input-scale, or")
    scale.add_argument(
        "--input-scale-from", type=Path, metavar="SCAN", help="of a reference scan; its probe is taken too"
    )
    scale.add_argument("--scale-window", type=positive, default=64, help="else of so many first frames (64)")
    device_options(command)
    engine_option(command)
    cuda_graph_option(command)
    sha256_option(command)
    timeout_option(command)
    image_options(command)
    command.add_argument(
        "--publish", metavar="PREFIX", help="serve PREFIXphase, amplitude, uncertainty, status, verdict, state"
    )
    command.add_argument("--rate", type=float, default=2.0, help="updates of these a second (2)")
    command.add_argument("--resume", action="store_true", help="go on where a run for the same -o was ended")
    command.add_argument("--journal-s", type=float, default=5.0, help="seconds between two states on disk (5)")
    command.add_argument("--force", action="store_true", help="overwrite files at --out that are not earlier results")
    command.add_argument("--json", action="store_true", help="print the account of frames as JSON")
    command.add_argument("--strict", action="store_true", help="exit with 5 where the image is not trusted")
    command.add_argument("--config", type=Path, metavar="FILE.toml", help="options of a beamline")
    examples(
        command,
        """
        ptycho-runtime live wts.h5.zip pva://IOC:image --positions pva://IOC:positions -o object.h5 --intensity
        ptycho-runtime live wts.h5.zip scan.h5 --follow -o object.h5 --frames 400 --json
        """,
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return its exit code."""
    import ptycho_runtime
    from ptycho_runtime.engine.options import RunOptions
    from ptycho_runtime.image.products.target import check_target

    _refuse_contradictions(arguments)
    inputs = {"bundle": arguments.bundle, "mask": arguments.mask, "probe": arguments.probe}
    inputs |= {"reference scan": arguments.input_scale_from}
    inputs |= {"scan": Path(arguments.source)} if arguments.follow else {}
    target = check_target(arguments.out, inputs, force=arguments.force)
    how = RunOptions(
        device=arguments.device,
        batch=arguments.batch,
        threads=arguments.threads,
        cuda_graph=arguments.cuda_graph,
        engine=arguments.engine,
    )
    with ptycho_runtime.open(
        arguments.bundle, how, model_domain=arguments.model_domain, sha256=arguments.sha256
    ) as model:
        say(f"{model.export.path.name}: sha256 {model.export.sha256}; device {model.patches.device}")
        model.warmup()
        return _Live(arguments, model, target).run()


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    if not arguments.follow and not arguments.source.startswith(SCHEME):
        raise ReconstructionError(f"{arguments.source}: expected pva://PREFIX:image, or a file with --follow")
    if not arguments.follow and arguments.positions is None:
        raise ReconstructionError(
            "where the positions come from is not said; give --positions pva://PREFIX:positions, plan.csv or attribute"
        )
    if arguments.centre == "auto":
        raise ReconstructionError("--centre auto needs a whole scan; give --centre ROW,COL")
    for name in ("idle_s", "batch_window_s", "rate", "journal_s"):
        if not 0 < getattr(arguments, name) < 1e6:
            raise ReconstructionError(
                f"--{name.replace('_', '-')} is {getattr(arguments, name)}; expected seconds above 0"
            )


class _Live:
    """The command with all that its series share."""

    def __init__(self, arguments: argparse.Namespace, model: Reconstructor, target: Target) -> None:
        self.arguments, self.model, self.target = arguments, model, target
        self.plan: Positions | None = None
        self.inbox: Inbox | None = None
        self.stop = threading.Event()
        self.fetch_probe: Callable[[str], Any] | None = None

    # The sink of the source, whichever series is at it.
    def frame(self, frame: Any) -> None:
        self._now().frame(frame)

    def positions(self, positions: Any) -> None:
        self._now().positions(positions)

    def ended(self) -> None:
        self._now().ended()

    def disconnected(self, what: str) -> None:
        self._now().disconnected(what)

    def fault(self, error: Exception) -> None:
        self._now().fault(error)

    def _now(self) -> Inbox:
        assert self.inbox is not None
        return self.inbox

    def run(self) -> int:
        from ptycho_runtime.live.run import Series, series_path

        options = self._options()
        source = self._source()
        number, code = 1, 0
        series = Series(self.model, self._inbox(options), options)
        self.inbox = series.inbox
        with _stopped_by_signals(self.stop):
            try:
                source.start(self)
                while True:
                    outcome = self._series(series, number, options)
                    earlier = series.inbox
                    if earlier.restarted and outcome.account["seen"] <= 1:
                        # What the server held from the scan before, which a new subscriber gets first.
                        say("one frame of an earlier scan is left out")
                        number -= 1
                    else:
                        code = max(code, self._report(outcome, series_path(self.target.path, number)))
                    if not earlier.restarted or outcome.stopped or outcome.fault:
                        return code
                    number += 1
                    say(f"a new series begins: {series_path(self.target.path, number)}")
                    series = Series(self.model, self._inbox(options), options)
                    earlier.hand_over(series.inbox)
                    self.inbox = series.inbox
            finally:
                source.close()

    def _series(self, series: Any, number: int, options: LiveOptions) -> Outcome:
        from ptycho_runtime.live.journal import Journal
        from ptycho_runtime.live.publish import Publisher
        from ptycho_runtime.live.run import series_path

        arguments = self.arguments
        series.stop = self.stop
        series.fetch_probe = self.fetch_probe
        series.journal = Journal(series_path(self.target.path, number))
        with ExitStack() as stack:
            publisher = None
            if arguments.publish:
                publisher = Publisher(
                    arguments.publish, arguments.rate, series.look, options.pixel_size_m, complain=complain
                )
                stack.enter_context(publisher)
            found: Outcome = series.run(arguments.resume and number == 1, say)
            if publisher is not None:
                publisher.update("done", str(found.fault or ""))
        return found

    def _report(self, outcome: Outcome, out: Path) -> int:
        """Write and say what came of a series; returns the exit code."""
        from ptycho_runtime.cli import report
        from ptycho_runtime.image.products.target import Target
        from ptycho_runtime.image.products.write import write_product
        from ptycho_runtime.live.journal import Journal
        from ptycho_runtime.live.scale import exactly_again

        fault, code = outcome.fault, 0
        if outcome.result is not None:
            try:
                written = write_product(outcome.result, Target(out))
                for line in report.lines(outcome.result, written):
                    (say if self.arguments.json else show)(line)
                if not outcome.result.partial:
                    Journal(out).remove()
            except PtychoExportError as error:
                fault = fault or error
            if outcome.scale is not None and outcome.whole_scale:
                again = exactly_again(outcome.scale, outcome.whole_scale, self.model.export.path)
                if again:
                    say(again)
            code = exit_code_of(outcome.result.trust.verdict, strict=self.arguments.strict)
        else:
            say("no frame was placed: there is no image")
            journal = Journal(out)
            if not journal.exists:
                journal.remove()
        if outcome.stopped:
            code = EXIT_STOPPED
        if fault is not None:
            complain(f"fault: {fault}")
            if not isinstance(fault, (PtychoExportError, OSError)):
                raise fault
            code = fault.exit_code if isinstance(fault, PtychoExportError) else 2
        text = json.dumps(outcome.account)
        (show if self.arguments.json else say)(text)
        return code

    def _options(self) -> LiveOptions:
        from ptycho_runtime.live.run import LiveOptions
        from ptycho_runtime.live.scale import known_scale
        from ptycho_runtime.scan.layouts.mask import read_mask
        from ptycho_runtime.scan.options import ReadOptions
        from ptycho_runtime.scan.read import read_scan

        arguments, export = self.arguments, self.model.export
        image = chosen_image(arguments)
        reading = ReadOptions(domain=arguments.domain, fit=arguments.fit)
        energy, probe, name = None, None, ""
        if arguments.input_scale_from is not None:
            with read_scan(arguments.input_scale_from, export.N, reading) as scan:
                energy, probe, name = scan.energy(export.N, export.domain), scan.probe, scan.name
        if arguments.probe is not None:
            with read_scan(arguments.probe, export.N, replace(reading, positions_optional=True)) as scan:
                probe = scan.probe
            if probe is None:
                raise ReconstructionError(f"{arguments.probe}: has no probe; give another file with --probe")
        where = None if arguments.centre is None else (round(arguments.centre[0]), round(arguments.centre[1]))
        return LiveOptions(
            image=image,
            scale=known_scale(export, image.scale, energy, name),
            window=arguments.scale_window,
            batch_window_s=arguments.batch_window_s,
            frames=arguments.frames,
            idle_s=arguments.idle_s,
            domain=arguments.domain,
            fit=arguments.fit,
            centre=where,
            bad=None if arguments.mask is None else read_mask(arguments.mask),
            probe=probe,
            pixel_size_m=arguments.pixel_size_m,
            name=arguments.source,
            journal_s=arguments.journal_s,
        )

    def _source(self) -> Source:
        from ptycho_runtime.live.sources.plan import read_plan
        from ptycho_runtime.live.sources.pva import PvaSource, pv_name
        from ptycho_runtime.live.sources.swmr import FollowSource

        arguments = self.arguments
        where = arguments.positions
        in_stream = where is None or where == "attribute" or where.startswith(SCHEME)
        self.plan = None if in_stream else read_plan(Path(where))
        if arguments.follow:
            keys = None if self.plan is not None else (arguments.x_key, arguments.y_key)
            return FollowSource(Path(arguments.source), patterns_key=arguments.patterns_key, position_keys=keys)
        names = tuple(arguments.attributes.split(","))
        if where == "attribute" and len(names) != 2:
            raise ReconstructionError(f"--attributes is {arguments.attributes!r}; expected two names, X,Y")
        source = PvaSource(
            pv_name(arguments.source),
            pv_name(where) if where is not None and where.startswith(SCHEME) else None,
            attributes=(names[0], names[1]) if where == "attribute" else None,
            end=None if arguments.end is None else pv_name(arguments.end),
        )
        self.fetch_probe = source.probe
        return source

    def _inbox(self, options: LiveOptions) -> Inbox:
        from ptycho_runtime.live.groups import Groups
        from ptycho_runtime.live.inbox import Inbox, Limits
        from ptycho_runtime.live.pairing import Pairing

        arguments, export = self.arguments, self.model.export
        C = self.model.expected_input_shape[0]
        groups = Groups(1 if C == 1 else export.C, export.N, lag=arguments.group_lag)
        pairing = Pairing(arguments.match, arguments.tolerance_s)
        held = arguments.inbox or (64 if arguments.overrun == "newest" else 1024)
        limits = Limits(arguments.overrun, held, arguments.spool_bytes, arguments.spool_folder)
        inbox = Inbox(limits, pairing, groups)
        inbox.ledger.expected = arguments.frames
        inbox.look = options.check
        if self.plan is not None:
            inbox.positions(self.plan)
            if C > 1 and self.plan.ids is not None:
                groups.plan(self.plan.ids, self.plan.xy_px)
        return inbox


class _stopped_by_signals:
    """Lets SIGINT and SIGTERM end the run in order: what was placed is written."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.before[number] = signal.signal(number, lambda *_: self.stop.set())

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
