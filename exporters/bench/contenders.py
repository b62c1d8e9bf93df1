"""Who takes part: each way of running a graph, opened in a process of its own from what its user would have at hand.

Nothing here imports a runtime before a contender is opened, so that a process holds only the runtime it measures.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from exporters.bench.case import (
    CENTRE,
    REWRITE_NAMES,
    VARIANT,
    VARIANT_CENTRE,
    VARIANT_GPU,
    WHOLE,
    WITHOUT,
    CannotRun,
    Case,
    Engine,
    Feed,
)
from exporters.bench.onnx_engines import BoundEngine, CopyingEngine, RuntimeEngine

if TYPE_CHECKING:
    import numpy as np

GRAPH = "diffraction_to_obj"


@dataclass(frozen=True)
class Contender:
    """One way of running the graph."""

    name: str
    precision: str
    open: Callable[[Case, str, int], Engine]  # (case, device, threads); raises CannotRun
    reads: str  # whose size counts: bundle, torchscript, or an ONNX file by its name in `Case.files`
    devices: tuple[str, ...] = ("cpu",)
    cold_starts: int = 3
    environment: Mapping[str, str] = field(default_factory=dict)  # of its process, beside the number of threads

    @property
    def centre(self) -> bool:
        """Say whether only the middle of the patches is computed."""
        return self.reads in (CENTRE, VARIANT_CENTRE)

    @property
    def key(self) -> str:
        """Return the name by which the processes know it."""
        return f"{self.name} {self.precision}"


class TorchEngine:
    """Anything PyTorch calls with tensors."""

    def __init__(self, function: Callable[..., Any], case: Case, device: str, *, settle: int = 1) -> None:
        """Take a function of the graph's inputs in order; `settle` calls let a just-in-time compiler finish."""
        self.function, self.case, self.device, self.settle = function, case, device, settle

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Put the feed on the device."""
        import torch

        if self.device == "cuda":
            # What the batch before took: a GPU has no room for every contender's largest batches, all at a time.
            torch.cuda.empty_cache()
        tensors = [torch.from_numpy(feed[name]).to(self.device) for name in self.case.inputs]

        def call() -> Any:
            with torch.inference_mode():
                found = self.function(*tensors)
            if self.device == "cuda":
                torch.cuda.synchronize()
            return found

        return call

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return the outputs by name."""
        import torch

        if isinstance(found, torch.Tensor):  # the eager model's complex patches
            found = (found.real, found.imag)
        return {name: value.cpu().numpy() for name, value in zip(self.case.outputs, found, strict=True)}


def _torch(device: str, threads: int, tf32: bool = False) -> None:
    try:
        import torch
    except ImportError as error:
        raise CannotRun("PyTorch is not installed") from error
    torch.set_num_threads(threads)
    if device == "cuda":
        if not torch.cuda.is_available():
            raise CannotRun("no CUDA device")
        # float32 contenders compute float32 products in float32.
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32


def _eager_model(case: Case, device: str) -> Any:
    from ptycho_torch import load_torch_bundle

    models, _ = load_torch_bundle(case.bundle, GRAPH, architecture=case.architecture, params_cfg=case.params)
    return models[GRAPH].to(device)


def open_eager(case: Case, device: str, threads: int, *, tf32: bool = False) -> Engine:
    """Open the model as PtychoPINN's users do: from the bundle."""
    _torch(device, threads, tf32)
    model = _eager_model(case, device)
    return TorchEngine(lambda x, scale: model.forward_predict(x, x, x, scale), case, device)


def open_compiled(case: Case, device: str, threads: int) -> Engine:
    """Open the model under torch.compile; the complex patches, which its compiler has no code for, are made after it."""
    _torch(device, threads)
    import torch
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError as error:
        raise CannotRun("torch.compile needs a C++ compiler, and none works here") from error
    model = _eager_model(case, device)
    # A function a batch size, as a scan has one; sizes left open would cost speed.
    network: Callable[..., Any] = torch.compile(model.network_output, dynamic=False)
    return TorchEngine(lambda x, scale: model.patches(*network(x, scale)), case, device)


def _script(case: Case, device: str, threads: int) -> Any:
    _torch(device, threads)
    import torch

    return torch.jit.load(case.torchscript, map_location=device)  # type: ignore[no-untyped-call]


def open_torchscript(case: Case, device: str, threads: int) -> Engine:
    """Open the stored TorchScript file."""
    return TorchEngine(_script(case, device, threads), case, device)


def open_frozen(case: Case, device: str, threads: int) -> Engine:
    """Open the stored TorchScript file, frozen and optimised for inference."""
    module = _script(case, device, threads)
    import torch

    frozen = torch.jit.optimize_for_inference(torch.jit.freeze(module.eval()))
    return TorchEngine(frozen, case, device)


def open_onnx(case: Case, device: str, threads: int, which: str = WHOLE) -> Engine:
    """Open a stored ONNX file under onnxruntime in float32; on a GPU with its buffers bound."""
    return RuntimeEngine.onnx(case, which, threads) if device == "cpu" else BoundEngine(case, device, threads)


def open_tensorrt(case: Case, device: str, threads: int, *, tf32: bool = False) -> Engine:
    """Open the stored ONNX file under TensorRT; its engine is built in the first run."""
    return BoundEngine(case, "tensorrt", threads, tf32=tf32)


def open_openvino(
    case: Case, device: str, threads: int, which: str = WHOLE, precision: str | None = "float32"
) -> Engine:
    """Open a stored ONNX file under OpenVINO; the precision is the stored variant's where None."""
    return RuntimeEngine.openvino(case, which, threads, precision)


_BOTH = ("cpu", "cuda")
_GPU = ("cuda",)
_NO_TF32 = {"NVIDIA_TF32_OVERRIDE": "0"}  # TensorRT has no other option against it
CONTENDERS: tuple[Contender, ...] = (
    Contender("eager", "float32", open_eager, "bundle", _BOTH),
    Contender("eager", "tf32", partial(open_eager, tf32=True), "bundle", _GPU),
    # One cold start: it compiles for tens of seconds.
    Contender("torch.compile", "float32", open_compiled, "bundle", _BOTH, cold_starts=1),
    Contender("TorchScript", "float32", open_torchscript, "torchscript", _BOTH),
    Contender("frozen TorchScript", "float32", open_frozen, "torchscript", _BOTH),
    Contender("ONNX", "float32", open_onnx, WHOLE, _BOTH),
    Contender("ONNX", "tf32", partial(BoundEngine, tf32=True), WHOLE, _GPU),
    Contender("ONNX with copies", "float32", CopyingEngine, WHOLE, _GPU),
    Contender("ONNX CUDA graph", "float32", partial(BoundEngine, cuda_graph=True), WHOLE, _GPU),
    Contender("ONNX CUDA graph", "tf32", partial(BoundEngine, tf32=True, cuda_graph=True), WHOLE, _GPU),
    Contender("stored variant", "float16", partial(BoundEngine, which=VARIANT_GPU), VARIANT_GPU, _GPU),
    Contender(
        "stored variant CUDA graph",
        "float16",
        partial(BoundEngine, which=VARIANT_GPU, cuda_graph=True),
        VARIANT_GPU,
        _GPU,
    ),
    # One cold start: it builds its engine anew.
    Contender("ONNX TensorRT", "float32", open_tensorrt, WHOLE, _GPU, cold_starts=1, environment=_NO_TF32),
    Contender("ONNX TensorRT", "tf32", partial(open_tensorrt, tf32=True), WHOLE, _GPU, cold_starts=1),
    Contender("ONNX centre", "float32", partial(open_onnx, which=CENTRE), CENTRE),
    Contender("OpenVINO", "float32", open_openvino, WHOLE),
    Contender("OpenVINO", "bfloat16", partial(open_openvino, precision="bfloat16"), WHOLE),
    Contender("OpenVINO centre", "bfloat16", partial(open_openvino, which=CENTRE, precision="bfloat16"), CENTRE),
    Contender("stored variant", "reduced", partial(open_openvino, which=VARIANT, precision=None), VARIANT),
    Contender(
        "stored variant centre", "reduced", partial(open_openvino, which=VARIANT_CENTRE, precision=None), VARIANT_CENTRE
    ),
)
# What the exact rewrites are worth: ONNX files made without all, or without one of them.
REWRITTEN: tuple[Contender, ...] = tuple(
    Contender(f"ONNX {which}", "float32", partial(open_onnx, which=which), which, cold_starts=0)
    for which in (WITHOUT + "rewrites", *(WITHOUT + name for name in REWRITE_NAMES))
)
EAGER, FROZEN, ONNX = "eager float32", "frozen TorchScript float32", "ONNX float32"
ONNX_CENTRE = "ONNX centre float32"
# What keeps its budget, and what computes the same in float32.
REDUCED = {"stored variant reduced": ONNX, "stored variant centre reduced": ONNX_CENTRE}


class MatrixEngine:
    """A large square float32 matrix product: what this machine can multiply and add at best."""

    def __init__(self, multiply: Callable[[], Any]) -> None:
        """Take the product as a call."""
        self.multiply = multiply

    def prepare(self, feed: Feed) -> Callable[[], Any]:
        """Return the product; the feed plays no part."""
        return self.multiply

    def arrays(self, found: Any) -> dict[str, np.ndarray]:
        """Return nothing: a product is no object."""
        return {}


MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}


def matrix_multiply_adds(device: str) -> int:
    """Return the multiply-adds of one product."""
    return MATRIX_SIZE[device] ** 3


def open_matrix_torch(case: Case, device: str, threads: int) -> Engine:
    """Open PyTorch's matrix product."""
    _torch(device, threads)
    import torch

    a = torch.rand(MATRIX_SIZE[device], MATRIX_SIZE[device], device=device)
    out = torch.empty_like(a)

    def multiply() -> None:
        torch.mm(a, a, out=out)
        if device == "cuda":
            torch.cuda.synchronize()

    return MatrixEngine(multiply)


def open_matrix_numpy(case: Case, device: str, threads: int) -> Engine:
    """Open NumPy's matrix product; its library takes the number of threads from the environment."""
    import numpy as np

    a = np.random.default_rng(0).random((MATRIX_SIZE[device],) * 2, np.float32)
    out = np.empty_like(a)
    return MatrixEngine(lambda: np.matmul(a, a, out=out))


def open_matrix_onnxruntime(case: Case, device: str, threads: int) -> Engine:
    """Open onnxruntime's matrix product."""
    import numpy as np
    from onnx import TensorProto, helper

    from ptycho_runtime.engine.opening import open_session
    from ptycho_runtime.engine.options import RunOptions

    size = MATRIX_SIZE[device]
    given, found = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, size]) for name in "ab")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "a"], ["b"])], "product", [given], [found])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = open_session(model.SerializeToString(), RunOptions("cpu", threads=threads), whole=True)
    a = np.random.default_rng(0).random((size, size), np.float32)
    return MatrixEngine(lambda: session.run({"a": a}))


# Three libraries, because none is the fastest one on every processor; the fastest one is the limit.
LIMITS: tuple[Contender, ...] = (
    Contender("matrix product (onnxruntime)", "float32", open_matrix_onnxruntime, "onnx", cold_starts=0),
    Contender("matrix product (PyTorch)", "float32", open_matrix_torch, "onnx", _BOTH, cold_starts=0),
    Contender("matrix product (NumPy)", "float32", open_matrix_numpy, "onnx", cold_starts=0),
)


def find(key: str) -> Contender:
    """Return the contender or limit of a name and precision."""
    return next(contender for contender in (*CONTENDERS, *REWRITTEN, *LIMITS) if contender.key == key)


def thread_environment(threads: int) -> dict[str, str]:
    """Return this process's environment with every numeric library held to the same number of threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, str(threads))}
