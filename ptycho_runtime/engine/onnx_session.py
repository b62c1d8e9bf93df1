"""One graph under onnxruntime, run as the feed comes; what its sessions on the CPU and on GPUs share."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from ptycho_runtime.engine.batching import Feed, InputInfo, checked, shapes_of
from ptycho_runtime.engine.binding import FixedBinding
from ptycho_runtime.engine.devices import ORT_ERRORS
from ptycho_runtime.engine.options import PROVIDERS, RunOptions
from ptycho_runtime.engine.session import BaseSession, closed
from ptycho_runtime.errors import DeviceUnavailableError, ReconstructionError


@dataclass(frozen=True)
class NodeRun:
    """One run of one node, from a profile."""

    name: str
    """The node's name after onnxruntime's optimisation."""
    operator: str
    provider: str
    """That ran it."""
    microseconds: float


class Profile:
    """onnxruntime's record of each node's runs: written while the session runs, read once."""

    def __init__(self) -> None:
        """Make a folder for it."""
        self._folder = tempfile.TemporaryDirectory(prefix="ptycho-profile-")
        self.prefix = str(Path(self._folder.name) / "profile")
        self._runs: list[NodeRun] | None = None

    def read(self, session: onnxruntime.InferenceSession) -> list[NodeRun]:
        """End the record and return what is in it; again, what was in it."""
        if self._runs is None:
            records = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
            self._runs = [
                NodeRun(record["name"], record["args"].get("op_name", ""), record["args"]["provider"], record["dur"])
                for record in records
                if record.get("cat") == "Node" and record.get("args", {}).get("provider")
            ]
        return self._runs

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


class OnnxSession(BaseSession):
    """One graph on one device: each feed is one run of all its groups, which onnxruntime splits among the threads as it sees fit.

    For graphs that are looked into: their inputs and outputs need not be the contract's.
    """

    engine = "onnxruntime"

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        options: RunOptions,
        *,
        note: str = "",
        profile: Profile | None = None,
        memory: str | None = None,
    ) -> None:
        """Take a session; `opening.open_session` makes one.

        Args:
            session: open on the device.
            options: how, with the device and threads that it truly has.
            note: see `Session.note`.
            profile: that the session writes, if it does.
            memory: where buffers lie: `cuda`, or `cpu`; the device's where None.
        """
        self.options, self.device, self.note = options, options.device, note
        self.memory = memory or ("cpu" if options.device == "cpu" else "cuda")
        self.inputs: dict[str, InputInfo] = {info.name: info for info in session.get_inputs()}
        self.outputs: list[str] = [info.name for info in session.get_outputs()]
        self._session: onnxruntime.InferenceSession | None = session
        self._profile = profile

    @property
    def session(self) -> onnxruntime.InferenceSession:
        """Onnxruntime's own session; raises `ReconstructionError` once it is closed."""
        if self._session is None:
            raise closed(self.engine)
        return self._session

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """See `Session.run`."""
        arrays, _ = checked(self.inputs, feed)
        return self._on(self.session, arrays)

    def bind(self, feed: Feed) -> FixedBinding:
        """Return buffers of the sizes of a feed, for a caller that does its own copies."""
        arrays, _ = checked(self.inputs, feed)
        return FixedBinding(self.session, shapes_of(self.inputs, arrays), self.memory)

    def facts(self) -> dict[str, Any]:
        """Return version, providers, the provider's options and TF32; where a profile was asked for, how often each ran a node.

        The profile ends with the first call.
        """
        session = self.session
        facts: dict[str, Any] = {"onnxruntime": onnxruntime.__version__, "providers": session.get_providers()}
        if self.device != "cpu":
            facts["provider_options"] = session.get_provider_options()[PROVIDERS[self.device]]
        if self.device == "cuda":
            facts["tf32"] = facts["provider_options"].get("use_tf32") == "1"
        if self._profile is not None:
            providers = [run.provider for run in self.node_runs()]
            facts["node_providers"] = {name: providers.count(name) for name in dict.fromkeys(providers)}
        return facts

    def node_runs(self) -> list[NodeRun]:
        """Return each run of each node so far; the profile ends with the first call. Raises `ValueError` where none was asked for."""
        if self._profile is None:
            raise ValueError("the session was opened without a profile; open it with profile=True")
        return self._profile.read(self.session)

    def close(self) -> None:
        """See `Session.close`."""
        self._session = None
        if self._profile is not None:
            self._profile.close()

    def _on(self, session: onnxruntime.InferenceSession, arrays: Feed) -> dict[str, np.ndarray]:
        try:
            values = session.run(self.outputs, dict(arrays))
        except ORT_ERRORS as error:
            raise run_failed(self.device, error) from error
        return {name: np.asarray(value) for name, value in zip(self.outputs, values, strict=True)}


def run_failed(device: str, error: Exception) -> ReconstructionError | DeviceUnavailableError:
    """Return what is raised where onnxruntime ends a run: on the CPU the graph is to blame, on a GPU mostly its memory."""
    if device == "cpu":
        return ReconstructionError(f"onnxruntime cannot run the graph: {in_a_line(error)}; export the bundle again")
    return DeviceUnavailableError(
        f"{device} could not run the graph: {in_a_line(error)}; a smaller --batch takes less memory"
    )


def in_a_line(error: Exception) -> str:
    """Return the beginning of what a library says, in one line."""
    return " ".join(str(error).split())[:300]
