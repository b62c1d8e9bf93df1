"""Look through a stored TorchScript file: tensor arithmetic only, nothing that reads or writes.

A TorchScript file is a program, and this parser is not the one that runs it. So this is the second fence, which names what is
wrong with a file; the first is that a stored file is never run because of what is found here, see `exporters.stored.torchscript`.
"""

from __future__ import annotations

import ast
import re

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.members import Members
from ptycho_torch.bundle.pickle.allowed import Function
from ptycho_torch.bundle.pickle.load import Reader, look_through
from ptycho_torch.bundle.tensors import TENSOR_GLOBALS
from ptycho_torch.bundle.zip_archive import open_zip
from ptycho_torch.errors import DamagedBundleError, LimitExceededError, UnsafeContentError

MAX_CODE_BYTES = 4 << 20
# What the graphs of this project's models are made of, and close relatives.
OPERATORS = frozenset({
    "_convolution", "abs", "adaptive_avg_pool2d", "add", "amax", "amin", "arange", "atan2", "avg_pool2d",
    "batch_norm", "bitwise_and", "bitwise_not", "broadcast_tensors", "cat", "ceil", "chunk", "clamp", "clamp_max",
    "clamp_min", "clone", "contiguous", "conv1d", "conv2d", "cos", "cumsum", "detach", "device", "div", "embedding",
    "eq", "exp", "expand", "expand_as", "flatten", "floor", "floor_divide", "full", "full_like", "gather", "ge",
    "gelu", "gt", "index_select", "instance_norm", "layer_norm", "le", "leaky_relu", "linear", "log", "log1p",
    "logical_and", "logical_not", "logical_or", "lt", "matmul", "max", "max_pool2d", "maximum", "mean", "min",
    "minimum", "mul", "narrow", "ne", "neg", "ones", "ones_like", "pad", "permute", "pow", "reciprocal", "relu",
    "remainder", "repeat", "reshape", "round", "rsqrt", "rsub", "select", "sigmoid", "sign", "silu", "sin", "size",
    "slice", "softmax", "sqrt", "square", "squeeze", "stack", "sub", "sum", "tanh", "tensor", "to", "transpose",
    "unbind", "unsqueeze", "upsample_bilinear2d", "upsample_nearest2d", "view", "where", "zeros", "zeros_like",
})  # fmt: skip
_PRIMITIVES = frozenset({"NumToTensor"})  # ops.prim.…
_BUILTINS = frozenset({"annotate", "bool", "float", "getattr", "int", "unchecked_cast"})
_TYPE_TAG = ("torch.jit._pickle", "restore_type_tag")  # says a list's type
_PLAIN_MEMBERS = (
    "version",
    ".data/version",
    "byteorder",
    ".data/serialization_id",
    ".format_version",
    ".storage_alignment",
)
_CODING = re.compile(r"^[^\S\n]*#.*coding", re.MULTILINE)
_LANGUAGE = (
    ast.Module, ast.ClassDef, ast.FunctionDef, ast.arguments, ast.arg, ast.AnnAssign, ast.Assign, ast.Return, ast.Expr, ast.Pass,
    ast.Call, ast.Attribute, ast.Name, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.UnaryOp, ast.BinOp, ast.keyword,
    ast.expr_context, ast.operator, ast.unaryop, ast.If, ast.IfExp, ast.Compare, ast.cmpop, ast.BoolOp, ast.boolop, ast.Slice,
)  # fmt: skip


def check_torchscript(data: bytes, where: str) -> None:
    """Refuse a TorchScript file that holds anything but tensor arithmetic over its own weights.

    Args:
        data: the file.
        where: its name for messages.

    Raises:
        UnsafeContentError: an operator, statement, global or member that none of this project's exports has; it is named.
        LimitExceededError: more than any export has.
        DamagedBundleError: it is no TorchScript file.
        NotABundleError: it is no zip archive.
    """
    parts = open_zip(data, where, plain=True)
    prefixes = {name.partition("/")[0] for name in parts}
    if len(prefixes) != 1:
        raise DamagedBundleError(f"{where}: is no TorchScript file; export the bundle again")
    prefix = prefixes.pop()
    if not {f"{prefix}/data.pkl", f"{prefix}/constants.pkl"} <= set(parts):
        raise DamagedBundleError(f"{where}: is no TorchScript file; export the bundle again")
    code_bytes = 0
    for name in parts:
        inner = name.partition("/")[2]
        if inner.startswith("code/") and inner.endswith(".py"):
            code_bytes += parts.sizes_bytes[name]
            if code_bytes > MAX_CODE_BYTES:
                raise LimitExceededError(f"{where}: holds more than {MAX_CODE_BYTES} bytes of code; refused")
            _check_code(bytes(parts.buffer(name)), f"{where}: {printable(inner)}")
        elif inner in ("data.pkl", "constants.pkl", "traced_inputs.pkl"):
            _check_pickle(parts, name, f"{where}: {inner}")
        elif inner not in _PLAIN_MEMBERS and not inner.startswith(("data/", "constants/", "traced_inputs/")):
            raise UnsafeContentError(f"{where}: holds {printable(ascii(inner))}, which no export has; refused")


def _check_pickle(parts: Members, name: str, where: str) -> None:
    if parts.sizes_bytes[name] > limits.MAX_PICKLE_BYTES:
        raise LimitExceededError(f"{where} has {parts.sizes_bytes[name]} bytes; refused")
    # Types of the file's own code are made by the file's own code, which is looked at as such.
    found = look_through(
        bytes(parts.buffer(name)),
        Reader(
            extra={key: Function(".".join(key), _nothing) for key in (*TENSOR_GLOBALS, _TYPE_TAG)},
            load_storage=_nothing,
        ),
    )
    for module, attribute in found.refused_globals:
        if not (module == "__torch__" or module.startswith("__torch__.")):
            raise UnsafeContentError(f"{where}: holds the global {printable(module)}.{printable(attribute)}; refused")
    if not found.end:
        raise DamagedBundleError(f"{where}: holds {found.refusal}; export the bundle again")


def _nothing(*_: object) -> None:
    """Stand for tensors, which PyTorch's own loader reads."""


def _check_code(source: bytes, where: str) -> None:
    try:
        text = source.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DamagedBundleError(f"{where}: its encoding is not UTF-8; refused") from error
    # TorchScript knows no coding lines, so a parser that obeys one reads something else than what runs.
    if _CODING.search(text):
        raise UnsafeContentError(f"{where}: holds a coding line, which no export has; refused")
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise DamagedBundleError(f"{where}: is no TorchScript code ({type(error).__name__}); refused") from error
    for node in ast.walk(tree):
        if not isinstance(node, _LANGUAGE):
            raise UnsafeContentError(f"{where}: holds a {type(node).__name__} statement, which no export has; refused")
        if isinstance(node, ast.Call) and not _allowed(node.func):
            raise UnsafeContentError(
                f"{where}: calls {printable(ast.unparse(node.func))}, which no export needs; refused"
            )
        if isinstance(node, ast.keyword) and node.arg == "out":
            raise UnsafeContentError(f"{where}: writes into a tensor by out=, which no export needs; refused")
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.decorator_list:
            raise UnsafeContentError(f"{where}: holds a decorator, which no export has; refused")


def _allowed(function: ast.expr) -> bool:
    if isinstance(function, ast.Name):
        return function.id in _BUILTINS
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value
    if isinstance(owner, ast.Name) and owner.id == "torch":
        return function.attr in OPERATORS
    if isinstance(owner, ast.Attribute) and isinstance(owner.value, ast.Name) and owner.value.id == "ops":
        return owner.attr == "prim" and function.attr in _PRIMITIVES
    # The forward method of one of the file's own modules, whose code is looked at as well.
    return function.attr.startswith("forward") and not (isinstance(owner, ast.Name) and owner.id == "ops")
