"""Exported files with something wrong in them."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper


def with_flipped_weight(data: bytes) -> bytes:
    """Return an ONNX file in which the largest number of its largest weight has the other sign."""
    model = onnx.load_from_string(data)
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= -1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model.SerializeToString()
