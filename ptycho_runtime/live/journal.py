"""What a live run has placed, on disk every few seconds, so that `--resume` goes on after a power failure or SIGKILL."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptycho_runtime.contract import CREATOR
from ptycho_runtime.errors import OutputError, ReconstructionError
from ptycho_runtime.export.npz import read_npz
from ptycho_runtime.files import replacing
from ptycho_runtime.image.core import Core
from ptycho_runtime.image.partial import resume, state_of

_STATE = "state.npz"
_MOST_BYTES = 1 << 34
_MARK = "ptycho-runtime live journal"


@dataclass(frozen=True)
class Remembered:
    """What an earlier run left."""

    made_with: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    checksums: Mapping[int, int]
    """Of the frames that were placed, by id."""


class Journal:
    """A folder beside the result: patches and amplitudes as they come, and a state that is replaced as a whole."""

    def __init__(self, out: Path) -> None:
        """Name the folder of a result's journal; nothing is made yet."""
        self.folder = out.with_name(f"{out.name}.journal")
        self.picture = self.folder / "image.partial.h5"
        """The image so far."""

    @property
    def exists(self) -> bool:
        """Say whether an earlier run left one."""
        return (self.folder / _STATE).is_file()

    def begin(self) -> None:
        """Make an empty folder; raises `OutputError` where something else is there, or the disk refuses."""
        try:
            if self.folder.exists():
                if not self._is_ours():
                    raise OutputError(
                        f"{self.folder}: exists, and is no journal of ptycho-runtime; give another name with -o"
                    )
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True)
            (self.folder / "README").write_text(f"{_MARK}\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror or error}); give another -o"
            ) from error

    def _is_ours(self) -> bool:
        mark = self.folder / "README"
        return self.folder.is_dir() and mark.is_file() and mark.read_text(encoding="utf-8").strip() == _MARK

    def write(self, core: Core, checksums: Mapping[int, int]) -> None:
        """Store what a core has taken, with the checksums of its frames by id.

        Raises:
            OutputError: the disk refuses; the earlier state is as it was.
        """
        state = state_of(core)
        memory = io.BytesIO()
        numbers = np.array(list(checksums), np.int64)
        extra: dict[str, np.ndarray] = {
            "made_with": np.frombuffer(json.dumps(state.made_with).encode(), np.uint8),
            "frames": numbers,
            "checksums": np.array([checksums[each] for each in numbers.tolist()], np.uint32),
        }
        np.savez(memory, allow_pickle=False, **{**state.arrays, **extra})
        try:
            core.evidence.patches.sync()
            core.evidence.amplitudes.sync()
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror or error}); make room there"
            ) from error
        with replacing(self.folder / _STATE) as file:
            file.write(memory.getvalue())
        self._draw(core)

    def _draw(self, core: Core) -> None:
        """Write the image so far, for whoever wants to look meanwhile."""
        import h5py

        canvas, memory = core.stitcher.result(), io.BytesIO()
        with h5py.File(memory, "w") as file:
            file.attrs["creator"], file.attrs["partial"], file.attrs["frames"] = CREATOR, True, core.groups
            file.attrs["x0_px"], file.attrs["y0_px"] = canvas.x0_px, canvas.y0_px
            file["object"], file["object_coverage"] = canvas.object, canvas.coverage
        with replacing(self.picture) as target:
            target.write(memory.getvalue())

    def read(self) -> Remembered:
        """Return what the last run stored.

        Raises:
            ReconstructionError: nothing is there, or it cannot be read.
        """
        if not self.exists:
            raise ReconstructionError(f"{self.folder}: there is no journal to go on with; leave out --resume")
        try:
            arrays = read_npz((self.folder / _STATE).read_bytes(), str(self.folder), _MOST_BYTES, "fiubc")
            made_with = json.loads(arrays.pop("made_with").tobytes())
            frames, checksums = arrays.pop("frames"), arrays.pop("checksums")
        except (OSError, KeyError, ValueError) as error:
            raise ReconstructionError(f"{self.folder}: cannot be read ({error}); leave out --resume") from error
        return Remembered(made_with, arrays, dict(zip(frames.tolist(), checksums.tolist(), strict=True)))

    def go_on(self, core: Core, remembered: Remembered) -> None:
        """Bring a new core, whose folder is the journal's, to where the earlier one was."""
        resume(core, remembered.made_with, remembered.arrays)

    def remove(self) -> None:
        """Remove the folder: the result is complete."""
        if self._is_ours():
            shutil.rmtree(self.folder, ignore_errors=True)
