"""A graph's input and output buffers on a device, bound once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from ptycho_runtime.engine.batching import DTYPES, Feed, Shapes
from ptycho_runtime.errors import ReconstructionError


class FixedBinding:
    """Input and output buffers of one size on a device, bound once: their addresses never change."""

    def __init__(self, session: onnxruntime.InferenceSession, shapes: Shapes, memory: str = "cuda") -> None:
        """Allocate the buffers and bind them.

        Args:
            session: whose graph is to be run.
            shapes: of its inputs.
            memory: `cuda`, or `cpu` for a session on the CPU.

        Raises:
            ReconstructionError: an output whose size does not follow from those of the inputs, or a type of no array here.
        """
        self.session, self._binding = session, session.io_binding()
        inputs = session.get_inputs()
        sizes = {
            axis: size
            for info, shape in zip(inputs, shapes, strict=True)
            for axis, size in zip(info.shape, shape, strict=True)
            if isinstance(axis, str)
        }
        self._inputs: dict[str, Any] = {}
        for info, shape in zip(inputs, shapes, strict=True):
            self._inputs[info.name] = _buffer(info.name, shape, info.type, memory)
            self._binding.bind_ortvalue_input(info.name, self._inputs[info.name])
        self._outputs: dict[str, Any] = {}
        for info in session.get_outputs():
            size = tuple(sizes.get(axis) if isinstance(axis, str) else axis for axis in info.shape)
            self._outputs[info.name] = _buffer(info.name, size, info.type, memory)
            self._binding.bind_ortvalue_output(info.name, self._outputs[info.name])

    def fill(self, feed: Feed) -> None:
        """Copy inputs in; they are of the shapes and types that `batching.checked` looked at.

        onnxruntime copies any array of as many numbers into a buffer, whatever its type and shape, and runs on what comes of it.
        """
        for name, buffer in self._inputs.items():
            buffer.update_inplace(np.ascontiguousarray(feed[name]))
        self._binding.synchronize_inputs()

    def run(self) -> None:
        """Run to the end; what onnxruntime raises comes through."""
        self.session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()

    def read(self, groups: int | None = None) -> dict[str, np.ndarray]:
        """Return the first `groups` of the outputs, or all, in arrays of their own."""
        found = {}
        for name, buffer in self._outputs.items():
            array = buffer.numpy()
            # From a GPU it is a copy; in host memory it is the buffer itself, which the next run overwrites.
            array = array if array.flags.owndata else array.copy()
            found[name] = array[:groups]
        return found


def _buffer(name: str, shape: tuple[int | None, ...], type_name: str, memory: str) -> Any:
    if None in shape or type_name not in DTYPES:
        raise ReconstructionError(
            f"{name} is {type_name} of shape {shape}; a GPU session needs every size beforehand, and one of {', '.join(DTYPES)}"
        )
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), DTYPES[type_name], memory, 0)
