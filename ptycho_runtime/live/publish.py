"""The picture, the account and the verdict as PVs, while frames come."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ptycho_runtime.live.ledger import KEYS
from ptycho_runtime.live.rolling import Snapshot
from ptycho_runtime.live.sources.pva import require_p4p, server_settings

Look = Callable[[], tuple[Snapshot | None, dict[str, Any]]]
_SEVERITY = {"trusted": 0, "doubtful": 1, "not trusted": 2}
IMAGES = ("phase", "amplitude", "uncertainty")


class Publisher:
    """Serves `PREFIX` + `phase`, `amplitude`, `uncertainty` (NTNDArray), `status` (NTTable), `verdict` and `state` (NTScalar with alarm).

    Images have attributes `x0_px`, `y0_px` (scan coordinates of pixel [0, 0]) and `pixel_size_m`; `uncertainty` is the standard
    deviation of the phase in rad. A context manager.
    """

    def __init__(
        self,
        prefix: str,
        rate_hz: float,
        look: Look,
        pixel_size_m: float = 0.0,
        port: int | None = None,
        complain: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Begin to serve.

        Args:
            prefix: of the PVs' names.
            rate_hz: updates a second.
            look: returns the image of this moment, None where there is none, and the account.
            pixel_size_m: of the image; 0 where it is not known.
            port: for TCP on 127.0.0.1, a free one where 0; EPICS's own settings where None.
            complain: told why nothing is published any more, if that happens.
        """
        require_p4p()
        from p4p.nt import NTNDArray, NTScalar, NTTable
        from p4p.server import Server
        from p4p.server.thread import SharedPV

        self._complain = complain
        self._look, self._period_s, self._pixel_m = look, 1.0 / rate_hz, pixel_size_m
        self._array, self._table = NTNDArray(), NTTable([("name", "s"), ("count", "l")])
        empty = self._array.wrap(np.zeros((1, 1), np.float32))
        self._images = {name: SharedPV(initial=empty) for name in IMAGES}
        self._status = SharedPV(nt=self._table, initial=[])
        self._texts = {name: SharedPV(nt=NTScalar("s"), initial="waiting") for name in ("verdict", "state")}
        pvs = {**self._images, **self._texts, "status": self._status}
        self._server = Server([{f"{prefix}{name}": pv for name, pv in pvs.items()}], **server_settings(port))
        self.port = int(self._server.conf()["EPICS_PVAS_SERVER_PORT"])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._count = 0

    def __enter__(self) -> Publisher:
        """Begin to update."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._stop.set()
        self._thread.join()
        self._server.stop()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            try:
                self.update("running")
            except Exception as error:  # who looks on must not end the run, and not learn of nothing either
                self._complain(f"the picture cannot be published ({type(error).__name__}: {error})")
                return

    def update(self, state: str, fault: str = "") -> None:
        """Post what there is now."""
        snapshot, account = self._look()
        dropped = sum(account["dropped"].values())
        counts = {name: account[name] for name in KEYS if name not in ("dropped", "trusted")} | {"dropped": dropped}
        self._status.post([{"name": name, "count": count} for name, count in counts.items()])
        severity = 3 if fault else 2 if account["failed"] else 1 if dropped or account["missing"] else 0
        self._post_text("state", fault or state, severity)
        if snapshot is None:
            return
        self._count += 1
        self._post_text("verdict", "; ".join((snapshot.verdict, *snapshot.reasons)), _SEVERITY[snapshot.verdict])
        object_ = snapshot.canvas.object
        for name, values in zip(
            IMAGES, (np.angle(object_), np.abs(object_), snapshot.phase_deviation_rad), strict=True
        ):
            self._post_image(name, np.ascontiguousarray(values, np.float32), snapshot)

    def _post_text(self, name: str, text: str, severity: int) -> None:
        stamp = time.time()
        self._texts[name].post({
            "value": text,
            "alarm.severity": severity,
            "alarm.message": text if severity else "",
            "timeStamp.secondsPastEpoch": int(stamp),
            "timeStamp.nanoseconds": int(1e9 * (stamp % 1.0)),
        })  # fmt: skip

    def _post_image(self, name: str, values: np.ndarray, snapshot: Snapshot) -> None:
        value = self._array.wrap(values)
        facts = {"x0_px": snapshot.canvas.x0_px, "y0_px": snapshot.canvas.y0_px, "pixel_size_m": self._pixel_m}
        value.attribute = [{"name": key, "value": float(fact)} for key, fact in facts.items()]
        value.uniqueId = self._count
        self._images[name].post(value)
