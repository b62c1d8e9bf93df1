"""A server that gives a scan as a detector and its stages would: what `live` is tried with where there is no beam."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptycho_runtime.errors import ReconstructionError
from ptycho_runtime.live.sources.codecs import CODECS, SCALAR_TYPES, encoded
from ptycho_runtime.live.sources.pva import require_p4p, server_settings
from ptycho_runtime.scan.scan import Scan

_SETTLE_S = 1.0  # from a client's channel to its subscription
_TABLE_S = 0.1  # between two tables of positions
_READ = 64  # patterns read in one go
_EPOCH_S = (
    631152000 + 20 * 365.25 * 86400
)  # frames are stamped from here, so that the same scan has the same stamps each time
_SEED = 20


@dataclass(frozen=True)
class Faults:
    """What goes wrong on the way."""

    lose: float = 0.0
    """Share of the frames that are never sent."""
    reorder: int = 0
    """Frames come up to so many places away from their own."""
    late_positions: int = 0
    """Positions come so many frames after theirs."""
    duplicate: bool = False
    """Some frames are sent twice."""


def order_of(count: int, faults: Faults) -> np.ndarray:
    """Return which frames (indices) are sent one after the other; the same for the same faults."""
    random = np.random.default_rng(_SEED)
    kept = np.flatnonzero(random.random(count) >= faults.lose)
    if faults.reorder:
        # No frame leaves its place by more than that.
        places = np.arange(len(kept)) + random.uniform(0, faults.reorder, len(kept))
        kept = kept[np.argsort(places, kind="stable")]
    if faults.duplicate:
        twice = random.random(len(kept)) < 0.05
        kept = np.repeat(kept, 1 + twice)
    return kept


class Replay:
    """Serves `PREFIX:image` (NTNDArray), `PREFIX:positions` (NTTable: id, x, y in pixels) and `PREFIX:end` (frames sent, when all are).

    A context manager. Each frame has the scan's own number as `uniqueId`, and attributes `x`, `y`, `domain`, `pixel_size_m` and, where
    the scan has a probe, `probe`: the name of a PV that holds it.
    """

    def __init__(self, scan: Scan, prefix: str, *, codec: str = "", port: int | None = None) -> None:
        """Begin to serve; nothing is sent yet.

        Args:
            scan: what is sent, as it is stored.
            prefix: of the PVs' names.
            codec: `lz4`, `bslz4`, `blosc`, or none.
            port: for TCP; a free one where 0, EPICS's own settings where None.
        """
        require_p4p()
        if codec and codec not in CODECS:
            raise ReconstructionError(f"codec {codec!r}; expected {', '.join(CODECS)} or none")
        self.scan, self.codec = scan, codec
        self.prefix = prefix.removeprefix("pva://").removesuffix(":")
        self.sent = 0
        self._here, self._stop = threading.Event(), threading.Event()
        self._serve(port)

    def _serve(self, port: int | None) -> None:
        from p4p.nt import NTNDArray, NTScalar, NTTable
        from p4p.server import Server
        from p4p.server.thread import SharedPV

        here = self._here

        class Arrival:
            def onFirstConnect(self, pv: Any) -> None:
                here.set()

        self._array, self._table = NTNDArray.buildType(), NTTable([("id", "l"), ("x", "d"), ("y", "d")])
        self._image = SharedPV(handler=Arrival(), initial=self._value({}))
        self._positions = SharedPV(nt=self._table, initial=self._table.wrap([]))
        self._end = SharedPV(nt=NTScalar("l"), initial=0)
        names = {"image": self._image, "positions": self._positions, "end": self._end}
        if self.scan.probe is not None:
            names["probe"] = SharedPV(initial=self._value(probe_fields(self.scan.probe)))
        self._server = Server([{f"{self.prefix}:{name}": pv for name, pv in names.items()}], **server_settings(port))
        self.port = int(self._server.conf()["EPICS_PVAS_SERVER_PORT"])

    def _value(self, fields: dict[str, Any]) -> Any:
        from p4p import Value

        return Value(self._array, fields)

    def wait_for_client(self, timeout_s: float | None = None, settle_s: float = _SETTLE_S) -> bool:
        """Return whether a client came, and had time to subscribe."""
        return self._here.wait(timeout_s) and not self._stop.wait(settle_s)

    def send(
        self, fps: float, faults: Faults | None = None, progress: Callable[[int, int], None] | None = None
    ) -> None:
        """Send the scan once.

        Args:
            fps: frames a second; as fast as it goes where 0.
            faults: what goes wrong on the way; nothing where None.
            progress: called with (frames sent, frames in all).
        """
        faults = faults or Faults()
        order = order_of(len(self.scan), faults)
        start = tables = time.perf_counter()
        for place, (index, values) in enumerate(self._frames(order)):
            due = start + place / fps if fps else 0.0
            if (
                self._stop.wait(max(due - time.perf_counter(), 0.0))
                if due > time.perf_counter()
                else self._stop.is_set()
            ):
                return
            self._image.post(self._frame(index, values, fps))
            self.sent = place + 1
            now = time.perf_counter()
            if now - tables >= _TABLE_S:
                self._post_positions(place + 1 - faults.late_positions)
                tables = now
            if progress:
                progress(place + 1, len(order))
        # The last positions come as late as all others.
        if fps and faults.late_positions:
            self._stop.wait(faults.late_positions / fps)
        self._post_positions(len(self.scan))
        self._end.post(self.sent)

    def _frames(self, order: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        _, rows = self.scan._grid()
        for first in range(0, len(order), _READ):
            part = order[first : first + _READ]
            unique, back = np.unique(rows[part], return_inverse=True)
            yield from zip(part.tolist(), self.scan.read(unique)[back], strict=True)

    def _frame(self, index: int, values: np.ndarray, fps: float) -> Any:
        number, (x, y) = int(self.scan.frames[index]), self.scan.positions_px[index].tolist()
        stamp_s = self.stamp_s(number, fps)
        stamp = {"secondsPastEpoch": int(stamp_s), "nanoseconds": int(1e9 * (stamp_s % 1.0))}
        flat = np.ascontiguousarray(values).reshape(-1)
        codes = {name: code for code, name in SCALAR_TYPES.items()}
        packed = encoded(flat, self.codec) if self.codec else flat
        facts: dict[str, Any] = {"x": x, "y": y, "domain": self.scan.domain, "pixel_size_m": self.scan.pixel_size_m}
        if self.scan.probe is not None:
            facts["probe"] = f"{self.prefix}:probe"
        return self._value({
            "value": (_UNION[packed.dtype.name], packed),
            "codec": {"name": self.codec, "parameters": codes[flat.dtype.name]},
            "compressedSize": packed.nbytes,
            "uncompressedSize": flat.nbytes,
            "uniqueId": number,
            "dataTimeStamp": stamp,
            "timeStamp": stamp,
            "dimension": [{"size": size, "fullSize": size, "binning": 1} for size in values.shape[::-1]],
            "attribute": [{"name": name, "value": fact} for name, fact in facts.items()],
        })  # fmt: skip

    def stamp_s(self, number: int, fps: float) -> float:
        """Return a frame's time stamp, seconds since the epoch: the same each time that a scan is sent."""
        return _EPOCH_S + number / (fps or 1000.0)

    def _post_positions(self, count: int) -> None:
        """Post a table of the first positions: all of them each time, so that none is lost with an update."""
        if count <= 0:
            return
        scan = self.scan
        from p4p import Value

        columns = {"id": scan.frames[:count], "x": scan.positions_px[:count, 0], "y": scan.positions_px[:count, 1]}
        self._positions.post(Value(self._table.type, {"labels": ["id", "x", "y"], "value": columns}))

    def wait(self) -> None:
        """Stay until `close`."""
        while not self._stop.wait(1.0):
            pass

    def linger(self) -> None:
        """Stay for as long as the last updates are under way."""
        self._stop.wait(2 * _SETTLE_S)

    def stop_sending(self) -> None:
        """Send nothing more."""
        self._stop.set()

    def close(self) -> None:
        """End the server."""
        self._stop.set()
        self._server.stop()

    def __enter__(self) -> Replay:
        """Return the server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def probe_fields(probe: np.ndarray) -> dict[str, Any]:
    """Return a probe (modes, N, N) complex64 as fields of an NTNDArray of axes (2, N, N, modes): real and imaginary part first."""
    parts = np.ascontiguousarray(probe, np.complex64).view(np.float32)
    sizes = (2, probe.shape[2], probe.shape[1], probe.shape[0])
    return {"value": ("floatValue", parts.reshape(-1)), "dimension": [{"size": size} for size in sizes]}


_UNION = {
    "int8": "byteValue", "int16": "shortValue", "int32": "intValue", "int64": "longValue", "uint8": "ubyteValue",
    "uint16": "ushortValue", "uint32": "uintValue", "uint64": "ulongValue", "float32": "floatValue", "float64": "doubleValue",
}  # fmt: skip
