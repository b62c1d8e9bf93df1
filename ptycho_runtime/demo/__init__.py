"""A small exported model and a small scan that come with this package, so that a first picture needs no file of one's own.

The model is the demo's `diffraction_to_obj` graph as `ptycho-export` wrote it, with its weights rounded to half precision for
the package's size: on the scan here the object differs from the unrounded one by a relative L2 of 4e-4. It was trained for the
demo's simulated data and for nothing else. The scan is 148 of the demo's 400 simulated patterns, as photon counts.
`examples/demo/make_package_demo.py` makes both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

_HERE = Path(__file__).parent
MODEL: Final = _HERE / "model.onnx"
"""A bare `.onnx` as `ptycho_runtime.open` takes it."""
SCAN: Final = _HERE / "scan.npz"
"""PtychoPINN NPZ whose `diff3d` are photon counts: read it with `--intensity`, or `ReadOptions(domain="intensity")`."""
