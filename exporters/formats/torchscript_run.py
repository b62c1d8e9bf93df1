"""A stored TorchScript file that is run as it is, in a child that can reach neither files nor network."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import numpy as np

from exporters.formats.torchscript_child import ERROR, READY, receive, send
from ptycho_runtime.files import printable
from ptycho_torch.errors import ConfigurationError, UnsafeContentError

MAX_RUN_S = 600.0


class StoredTorchScript(bytes):
    """A stranger's TorchScript file, which is run in a confined child or not at all."""


class ConfinedTorchScript:
    """A stranger's file in a child of its own: opened by `with`, one call a feed."""

    def __init__(self, data: bytes, outputs: Sequence[str], limit_s: float = MAX_RUN_S) -> None:
        """Take the file.

        Args:
            data: the TorchScript file.
            outputs: names of what it returns, in order.
            limit_s: seconds that one call may take.
        """
        self._data, self._outputs = data, tuple(outputs)
        self.limit_s = limit_s
        """Of the calls that follow."""
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the child and load the file in it.

        Raises:
            ConfigurationError: this system cannot confine a process.
            UnsafeContentError: the file cannot be loaded without files or network.
        """
        root = str(Path(__file__).resolve().parents[2])
        self._child = subprocess.Popen(
            [sys.executable, "-m", "exporters.formats.torchscript_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            close_fds=True,
            cwd="/",
            env={"PYTHONPATH": root, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
        )
        try:
            kind, arrays = self._exchange(None)
            if kind != READY:
                raise ConfigurationError(
                    f"--run-stored-torchscript: {_text(arrays)}; a stranger's TorchScript is not run without confinement"
                )
            self._exchange([np.frombuffer(self._data, np.uint8)])
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the child."""
        self._end()

    def run(self, arrays: Sequence[np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the outputs by name for inputs in order.

        Raises:
            UnsafeContentError: the file tried more than arithmetic, ended the child or took too long.
            ValueError: it returns another number of tensors.
        """
        _, found = self._exchange(arrays)
        return dict(zip(self._outputs, found, strict=True))

    def _exchange(self, arrays: Sequence[np.ndarray] | None) -> tuple[bytes, list[np.ndarray]]:
        assert self._child is not None
        timer = threading.Timer(self.limit_s, self._child.kill)
        timer.start()
        try:
            if arrays is not None:
                send(cast("IO[bytes]", self._child.stdin), b"feed", arrays)
            kind, found = receive(cast("IO[bytes]", self._child.stdout))
        except (EOFError, OSError, ValueError, IndexError) as error:
            raise UnsafeContentError(
                f"the stored TorchScript ended the process that ran it, or took more than {self.limit_s:.0f} s ({error})"
            ) from error
        finally:
            timer.cancel()
        if kind == ERROR and arrays is not None:
            raise UnsafeContentError(f"the stored TorchScript, confined, raised {_text(found)}")
        return kind, found

    def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _text(arrays: Sequence[np.ndarray]) -> str:
    return printable(" ".join(arrays[0].tobytes().decode("utf-8", "replace").split()), 300) if arrays else "nothing"
