"""How graphs are run, as a value: the same options open the sessions of a proof, a bench, a check and a reconstruction."""

from __future__ import annotations

import operator
from dataclasses import dataclass

from ptycho_runtime.errors import DeviceUnavailableError, ReconstructionError
from ptycho_runtime.export.precision import PRECISIONS

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
DEVICES = ("auto", *PROVIDERS)
ENGINES = ("onnxruntime", "openvino")
DEFAULT_BATCH = 16
# On an H100, ONNX of 128 × 128 pixels runs 5,700 patterns a second in batches of 16, 13,600 of 256 and 14,500 of 1024.
DEFAULT_CUDA_BATCH = 256
_MOST = 4096  # groups a run, threads: more is a slip of the pen


@dataclass(frozen=True)
class RunOptions:
    """How a graph is run.

    Raises `ReconstructionError` for a value that none of them can have, and `DeviceUnavailableError` for a CUDA graph on a device
    that has none.

    Examples:
        >>> import ptycho_runtime
        >>> ptycho_runtime.RunOptions("cpu", batch=8).groups
        8
        >>> ptycho_runtime.RunOptions("cuda").groups, ptycho_runtime.RunOptions("cpu").groups
        (256, 16)
    """

    device: str = "auto"
    """`cpu`, `cuda` or `tensorrt`, or `auto`: CUDA where it truly works, else the CPU with a note that says why."""
    batch: int | None = None
    """Groups a run on a GPU, where a new size costs a new plan; where None what was tuned, else `DEFAULT_BATCH`, on CUDA `DEFAULT_CUDA_BATCH`."""
    threads: int | None = None
    """CPU threads, never more than this process may use; all of those where None."""
    tf32: bool = False
    """Let a GPU round the factors of products to 10 bits."""
    cuda_graph: bool = False
    """Run each batch as one CUDA graph, captured in the first run; every run then has the shapes of the first."""
    precision: str = "float32"
    """`float32`, or `auto`: the variant that an export brings where its budget is kept on this host, else float32."""
    engine: str | None = None
    """What runs graphs in float32: `onnxruntime`, or `openvino`, which means the CPU; what was tuned, else onnxruntime, where None."""

    def __post_init__(self) -> None:
        """Check the values."""
        if self.device not in DEVICES:
            raise ReconstructionError(f"device {self.device!r}; expected {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
        for name in ("batch", "threads"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _whole(name, value))
        if self.precision not in PRECISIONS:
            raise ReconstructionError(f"precision {self.precision!r}; expected {' or '.join(PRECISIONS)}")
        if self.engine not in (None, *ENGINES):
            raise ReconstructionError(f"engine {self.engine!r}; expected {' or '.join(ENGINES)}")
        if self.engine == "openvino":
            if self.device not in ("auto", "cpu") or self.cuda_graph:
                asked = "with CUDA graphs" if self.cuda_graph else f"on {self.device}"
                raise DeviceUnavailableError(
                    f"openvino runs on the CPU here, not {asked}; ask for cpu, or for onnxruntime"
                )
            object.__setattr__(self, "device", "cpu")
        if self.cuda_graph and self.device not in ("auto", "cuda"):
            raise DeviceUnavailableError(
                f"CUDA graphs run on cuda, not on {self.device}; ask for cuda, or for no CUDA graph"
            )

    @property
    def groups(self) -> int:
        """Groups a run."""
        return self.batch or (DEFAULT_CUDA_BATCH if self.device == "cuda" else DEFAULT_BATCH)


DEFAULTS = RunOptions()


def _whole(name: str, value: object) -> int:
    try:
        found = -1 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]  # it is what is tried
    except TypeError:
        found = -1
    if not 1 <= found <= _MOST:
        raise ReconstructionError(f"{name} is {value!r}; expected a whole number from 1 to {_MOST}")
    return found
