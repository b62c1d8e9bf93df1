"""The picture so far, the account and the verdict as a client sees them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from ptycho_runtime.image.stitch import Canvas
from ptycho_runtime.live.ledger import Ledger
from ptycho_runtime.live.publish import Publisher
from ptycho_runtime.live.rolling import Snapshot

pytest.importorskip("p4p")


def look() -> tuple[Snapshot, dict[str, Any]]:
    rng = np.random.default_rng(0)
    object_ = (rng.random((5, 7)) * np.exp(1j * rng.random((5, 7)))).astype(np.complex64)
    ledger = Ledger(seen=9, placed=5, queued=2, dropped={"newer frames were preferred": [3, 4]}, lowest=1, highest=10)
    canvas = Canvas(object_, np.ones((5, 7), np.float32), -3.0, 11.0)
    found = Snapshot(canvas, np.full((5, 7), 0.25, np.float32), "doubtful", ("patches differ",))
    return found, ledger.document(False)


def test_a_client_sees_picture_account_and_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    from p4p.client.thread import Context

    with Publisher("PTYCHO:", 50.0, look, 1e-8, port=0) as publisher:
        monkeypatch.setenv("EPICS_PVA_NAME_SERVERS", f"127.0.0.1:{publisher.port}")
        monkeypatch.setenv("EPICS_PVA_AUTO_ADDR_LIST", "NO")
        with Context("pva", nt=False) as client:
            end = time.monotonic() + 20
            while client.get("PTYCHO:uncertainty", timeout=20).uniqueId == 0 and time.monotonic() < end:
                time.sleep(0.02)
            names = [f"PTYCHO:{name}" for name in ("phase", "amplitude", "uncertainty", "status", "verdict", "state")]
            phase, amplitude, uncertainty, status, verdict, state = client.get(names, timeout=20)
    expected = look()[0].canvas.object
    assert [axis.size for axis in phase.dimension] == [7, 5]
    assert np.array_equal(phase.value.reshape(5, 7), np.angle(expected))
    assert np.array_equal(amplitude.value.reshape(5, 7), np.abs(expected))
    assert set(uncertainty.value.tolist()) == {0.25}
    facts = {entry.name: entry.value for entry in phase.attribute}
    assert (facts["x0_px"], facts["y0_px"], facts["pixel_size_m"]) == (-3.0, 11.0, 1e-8)
    counts = dict(zip(status.value.name, status.value["count"].tolist(), strict=True))
    assert counts == {
        "seen": 9, "placed": 5, "waiting_position": 0, "waiting_group": 0, "queued": 2, "failed": 0, "missing": 1, "duplicates": 0,
        "dropped": 2,
    }  # fmt: skip
    assert (verdict.value, verdict.alarm.severity) == ("doubtful; patches differ", 1)
    assert (state.value, state.alarm.severity) == ("running", 1), "frames are missing"
