"""One environment holds PtychoPINN or this project: both have a package called `ptycho_torch`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from exporters.errors import MixedInstallationError

_ONLY_HERE = "architecture/weights.py"
_ONLY_THERE = ("inference.py", "reassembly.py", "dataloader.py")


def check_installation() -> None:
    """Raise `MixedInstallationError` where PtychoPINN's `ptycho_torch` hides this project's or lies over it."""
    spec = importlib.util.find_spec("ptycho_torch")
    folder = Path(spec.origin).parent if spec is not None and spec.origin else None
    if folder is None or not (folder / _ONLY_HERE).is_file():
        raise MixedInstallationError(
            f"the ptycho_torch package in {folder} is not ptycho-export's but probably PtychoPINN's, which has one of the same name; "
            "install ptycho-export in an environment of its own"
        )
    strangers = [name for name in _ONLY_THERE if (folder / name).is_file()]
    if strangers:
        raise MixedInstallationError(
            f"{folder} mixes ptycho-export's ptycho_torch with PtychoPINN's ({', '.join(strangers)}); "
            "install each in an environment of its own"
        )
