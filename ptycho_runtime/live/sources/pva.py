"""Frames and positions over EPICS PV Access."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptycho_runtime.errors import PackageMissingError
from ptycho_runtime.files import printable
from ptycho_runtime.live.sources.ntndarray import attribute_position, frame_of, positions_of, probe_of
from ptycho_runtime.live.values import FaultError, Sink

SCHEME = "pva://"
_QUEUE = 2000  # frames between server and client: beyond it the server leaves some out, which gaps in the ids show
_TABLES = 16
_ANSWER_S = 10.0


def pv_name(text: str) -> str:
    """Return the PV of `pva://NAME`, or of a bare name."""
    return text.removeprefix(SCHEME)


def require_p4p() -> Any:
    """Return p4p; raises `PackageMissingError` where it is not installed."""
    try:
        import p4p
        import p4p.client.thread
        import p4p.server.thread
    except ImportError as error:
        raise PackageMissingError(
            "EPICS PV Access needs p4p, which is not installed; pip install 'ptycho-export[live]'"
        ) from error
    return p4p


def server_settings(port: int | None) -> dict[str, Any]:
    """Return what a p4p server is opened with: on a port of 127.0.0.1 (a free one where 0), or as EPICS's own settings say."""
    if port is None:
        return {"useenv": True}
    conf = {
        "EPICS_PVAS_SERVER_PORT": str(port),
        "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1",
        "EPICS_PVAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_PVAS_BROADCAST_PORT": "0",
    }
    return {"conf": conf, "useenv": False}


class PvaSource:
    """Monitors of an image and of positions; both reconnect by themselves."""

    def __init__(
        self,
        image: str,
        positions: str | None = None,
        *,
        attributes: tuple[str, str] | None = None,
        end: str | None = None,
        queue: int = _QUEUE,
    ) -> None:
        """Take names of PVs.

        Args:
            image: of NTNDArrays.
            positions: of an NTTable with x, y and id or time; None where positions come another way.
            attributes: names of the NTAttributes that hold a frame's own x and y.
            end: of a number that is not 0 once the last frame was sent.
            queue: frames that may wait between server and client.
        """
        require_p4p()
        self.image, self.table, self.attributes, self.end, self.queue = image, positions, attributes, end, queue
        self._context: Any = None
        self._monitors: list[Any] = []

    def start(self, sink: Sink) -> None:
        """See `Source.start`."""
        from p4p.client.thread import Context

        self._context = Context("pva", nt=False)

        def image(value: Any) -> None:
            frame = frame_of(value)
            if frame is None:
                return
            # The frame first: it may be the one that begins a new series, to which the position belongs then.
            sink.frame(frame)
            if self.attributes is not None:
                sink.positions(attribute_position(frame, self.attributes))

        def table(value: Any) -> None:
            columns = value.value
            found = positions_of({name: columns[name] for name in columns.keys()})  # noqa: SIM118 - p4p's Value is no dict
            if found is not None:
                sink.positions(found)

        def end(value: Any) -> None:
            if value.value:
                sink.ended()

        wanted = [(self.image, image, self.queue), (self.table, table, _TABLES), (self.end, end, 4)]
        # Positions first: those that are there already are known before the first frame.
        for name, take, queue in sorted(wanted, key=lambda each: each[2]):
            if name is not None:
                self._monitors.append(self._monitor(name, take, queue, sink))

    def _monitor(self, name: str, take: Any, queue: int, sink: Sink) -> Any:
        from p4p.client.thread import Cancelled, Disconnected, RemoteError

        def update(value: Any) -> None:
            try:
                if isinstance(value, Disconnected):
                    sink.disconnected(name)
                elif isinstance(value, RemoteError):
                    sink.fault(FaultError(f"{name}: the server refuses ({' '.join(str(value).split())[:120]})"))
                elif not isinstance(value, (Cancelled, Exception)):
                    take(value)
            except Exception as error:  # in p4p's own thread nobody would see it
                sink.fault(error)

        request = f"field()record[queueSize={queue}]"
        return self._context.monitor(name, update, request=request, notify_disconnect=True)

    def probe(self, name: str) -> np.ndarray:
        """Return the probe (modes, N, N) complex64 that a PV holds, as `replay` serves it.

        Raises:
            FaultError: it holds none, or does not answer.
        """
        try:
            return probe_of(self._context.get(name, timeout=_ANSWER_S))
        except TimeoutError as error:
            raise FaultError(
                f"the stream names {printable(name)} for its probe, which does not answer; give --probe FILE"
            ) from error

    def close(self) -> None:
        """See `Source.close`."""
        for monitor in self._monitors:
            monitor.close()
        if self._context is not None:
            self._context.close()
            self._context = None
