"""Matplotlib without a trace: what it keeps of its own does not go to a user's home that has nothing of it."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

_FOLDER = "MPLCONFIGDIR"


def import_matplotlib() -> None:
    """Import matplotlib before anything draws.

    It makes a folder for its settings and writes a list of fonts when it is first imported. Where a user has used it before, it goes
    on as it did; else both lie in a temporary folder that is gone afterwards, and the list is made anew each time.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    if "matplotlib.font_manager" in sys.modules or _FOLDER in os.environ or _used_before():
        return
    with tempfile.TemporaryDirectory(prefix="ptycho-export-") as folder:
        os.environ[_FOLDER] = folder
        try:
            import matplotlib.font_manager  # noqa: F401  # both folders are settled by it
        finally:
            del os.environ[_FOLDER]


def _used_before() -> bool:
    """Say whether this user has settings or a list of fonts of matplotlib's."""
    try:
        home = Path.home()
    except RuntimeError:
        return False
    places = (("XDG_CONFIG_HOME", home / ".config"), ("XDG_CACHE_HOME", home / ".cache"))
    folders = [Path(os.environ.get(name) or usual) / "matplotlib" for name, usual in places]
    return any(folder.is_dir() for folder in [*folders, home / ".matplotlib"])
