"""What this host can do, and what to install for more."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import onnxruntime

from ptycho_runtime.engine.devices import why_not
from ptycho_runtime.engine.hardware import cgroup_cpus, usable_threads


def report() -> dict[str, str]:
    """Return facts about this host, by topic."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "onnxruntime": f"{onnxruntime.__version__} ({', '.join(_wheels()) or 'not from a wheel'})",
        "providers": ", ".join(onnxruntime.get_available_providers()),
        "threads": f"{usable_threads()} (quota of the control group: {cgroup_cpus():g} CPUs)",
    }
    if len(_wheels()) > 1:
        facts["problem"] = (
            "two onnxruntime wheels overwrite each other: pip uninstall both, then install onnxruntime-gpu alone"
        )
    for device in ("cuda", "tensorrt"):
        facts[device] = (
            why_not(device)
            or "driver and provider are there; `ptycho-runtime check BUNDLE --device " + device + "` proves it"
        )
    for package, use in (
        ("h5py", "CXI, HDF5 and Ptychodus files"),
        ("hdf5plugin", "HDF5 compressed by bitshuffle, LZ4, zstd or blosc (pip install 'ptycho-export[compression]')"),
        ("scipy", "grouping for gridsize > 1, masks"),
        ("PIL", "pictures"),
        ("matplotlib", "figures as SVG and PDF (pip install 'ptycho-export[figure]')"),
        ("tqdm", "progress bars"),
        (
            "openvino",
            "variants in reduced precision, and float32 where it is faster (pip install 'ptycho-export[openvino]')",
        ),
    ):
        facts[package] = _installed(package, use)
    return facts


def _wheels() -> list[str]:
    found = []
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found


def _installed(package: str, use: str) -> str:
    name = {"PIL": "pillow"}.get(package, package)
    try:
        return version(name)
    except PackageNotFoundError:
        return f"not installed, needed for {use}: pip install {name}"
