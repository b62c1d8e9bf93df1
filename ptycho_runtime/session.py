"""Run one graph in batches of a fixed size: padded, warmed up, safe to call from several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import numpy as np
import onnxruntime

from ptycho_runtime import contract as c
from ptycho_runtime.devices import open_session

_PER_GROUP = (c.DIFFRACTION, c.INPUT_SCALE, c.POSITIONS, c.OUTPUT_SCALE, c.EXPERIMENT_ID)


class GraphSession:
    """One graph on one device."""

    def __init__(
        self, model: bytes, device: str = "auto", batch: int = 16, *, tf32: bool = False, threads: int | None = None
    ) -> None:
        """Open the session; see `devices.open_session` for what is raised.

        Args:
            model: an ONNX file's content.
            device: `auto`, `cpu`, `cuda` or `tensorrt`.
            batch: groups per run on a GPU, where a new size costs a new plan; smaller requests are padded.
            tf32: see `open_session`.
            threads: see `open_session`.
        """
        opened = open_session(model, device, tf32=tf32, threads=threads)
        self.session, self.device, self.note = opened.session, opened.device, opened.note
        self.batch = batch
        self.inputs = {i.name: i for i in self.session.get_inputs()}
        self.outputs = [o.name for o in self.session.get_outputs()]
        self.cold_s: float | None = None  # the first run
        self.steady_s: float | None = None  # the latest run after it
        self._lock = threading.Lock()

    def warmup(self, modes: int = 1) -> None:
        """Run once on zeros, so that the first real patterns do not wait for plans and memory."""
        feed = {}
        for name, info in self.inputs.items():
            sizes = [{"batch": self.batch, "modes": modes}.get(d, 1) if isinstance(d, str) else d for d in info.shape]
            feed[name] = np.zeros(sizes, np.int64) if "int64" in info.type else np.full(sizes, 0.5, np.float32)
        self.run(feed)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name for any number of groups; inputs as the contract has them."""
        count = len(feed[c.DIFFRACTION])
        if self.device == "cpu":
            return self._run(feed)
        parts = []
        for start in range(0, count, self.batch):
            stop = min(start + self.batch, count)
            part = {k: _padded(v[start:stop], self.batch) if k in _PER_GROUP else v for k, v in feed.items()}
            parts.append({k: v[: stop - start] for k, v in self._run(part).items()})
        return {key: np.concatenate([part[key] for part in parts]) for key in self.outputs}

    def _run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        used = {name: np.ascontiguousarray(feed[name]) for name in self.inputs}
        start = time.perf_counter()
        if self.device == "cpu":
            found = self.session.run(self.outputs, used)
        else:
            # A binding and its buffers serve one caller at a time.
            with self._lock:
                binding = self.session.io_binding()
                for name, value in used.items():
                    binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, "cuda", 0))
                for name in self.outputs:
                    binding.bind_output(name)
                self.session.run_with_iobinding(binding)
                found = binding.copy_outputs_to_cpu()
        elapsed = time.perf_counter() - start
        if self.cold_s is None:
            self.cold_s = elapsed
        else:
            self.steady_s = elapsed
        return {name: np.asarray(value) for name, value in zip(self.outputs, found, strict=True)}


def _padded(values: np.ndarray, size: int) -> np.ndarray:
    if len(values) == size:
        return values
    return np.concatenate([values, np.repeat(values[-1:], size - len(values), axis=0)])
