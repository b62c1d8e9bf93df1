"""The corpus: what each hostile or broken file is, and the one error it must end in."""

from __future__ import annotations

import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import builders as b

Build = Callable[[Path, str], Path]  # (empty folder, shell command that leaves the canary) -> path to read

UNSAFE, LIMIT, DAMAGED = "UnsafeContentError", "LimitExceededError", "DamagedBundleError"
NOT_A_BUNDLE, WEIGHTS, MODELS = "NotABundleError", "WeightMismatchError", "MissingModelsError"
PARAMS_GONE, TENSORFLOW = "MissingParamsError", "TensorFlowBundleError"


@dataclass(frozen=True)
class Case:
    """One file that must be refused."""

    name: str
    error: str
    message: str  # part of it
    build: Build


CASES: list[Case] = []


def _file(name: str, error: str, message: str, make: Callable[[str], bytes], suffix: str = ".zip") -> None:
    def build(folder: Path, command: str) -> Path:
        path = folder / f"wts.h5{suffix}"
        path.write_bytes(make(command))
        return path

    CASES.append(Case(name, error, message, build))


def _path(name: str, error: str, message: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        CASES.append(Case(name, error, message, build))
        return build

    return add


# --- calls -----------------------------------------------------------------------------------------------------------


class _Reduce:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def _protocol(protocol: int) -> Callable[[str], bytes]:
    return lambda command: b.bundle(
        {"diffraction_to_obj/params.dill": pickle.dumps({"N": 64, "x": _Reduce(command)}, protocol)}
    )


for _p in range(6):
    _file(f"reduce-protocol-{_p}", UNSAFE, "params.dill: holds the global posix.system", _protocol(_p))

_file(
    "reduce-in-manifest",
    UNSAFE,
    "manifest.dill: holds the global posix.system",
    lambda command: b.bundle({"manifest.dill": pickle.dumps({"models": [], "x": _Reduce(command)})}),
)
_file(
    "reduce-in-weights",
    UNSAFE,
    "model.pth: holds the global posix.system",
    lambda command: b.with_weights(b.torch_file(b.dic({"w": b.call(b.glob("posix", "system"), b.text(command))}))),
)
_file(
    "reduce-in-scaling-metadata",
    UNSAFE,
    "torch_scaling_metadata.pt: holds the global posix.system",
    lambda command: b.bundle(
        {"torch_scaling_metadata.pt": b.torch_file(b.dic({"x": b.call(b.glob("posix", "system"), b.text(command))}))}
    ),
)


def _shell(module: str, name: str, stack: bool = False) -> Callable[[str], bytes]:
    make = b.stack_glob if stack else b.glob
    return lambda command: b.with_params(b.call(make(module, name), b.text(command)), 4 if stack else 2)


for _module, _name in [
    ("builtins", "eval"), ("builtins", "exec"), ("__builtin__", "eval"), ("builtins", "getattr"), ("builtins", "__import__"),
    ("builtins", "map"), ("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("operator", "attrgetter"),
    ("functools", "partial"), ("subprocess", "Popen"), ("ctypes", "CDLL"), ("numpy.testing._private.utils", "runstring"),
    ("torch.hub", "load"), ("torch.storage", "_load_from_bytes"), ("torch", "load"), ("torch.jit", "load"),
    ("pathlib", "PosixPath.unlink"), ("collections", "OrderedDict.fromkeys"), ("collections", "namedtuple"),
    ("_io", "open"), ("pydoc", "locate"), ("pickle", "loads"), ("dill", "loads"), ("dill._dill", "_create_function"),
    ("dill._dill", "_create_code"), ("dill._dill", "_import_module"), ("dill._dill", "_eval_repr"), ("dill._dill", "_get_attr"),
    ("numpy", "load"), ("numpy._core.multiarray", "fromfile"), ("keras.models", "load_model"), ("__main__", "Config"),
]:  # fmt: skip
    _file(f"global-{_module}.{_name}", UNSAFE, f"the global {_module}.{_name}", _shell(_module, _name))

_file("stack-global", UNSAFE, "the global posix.system", _shell("posix", "system", stack=True))
_file(
    "stack-global-from-memo",
    UNSAFE,
    "the global posix.system",
    # The names come from the memo, and the last texts written are those of an allowed global.
    lambda command: b.with_params(
        b.text("posix") + b"q\x010" + b.text("system") + b"q\x020" + b.text("numpy") + b"0" + b.text("dtype") + b"0"
        b"h\x01h\x02\x93" + b.tup(b.text(command)) + b"R",
        4,
    ),
)
_file(
    "stack-global-swapped-by-pop",
    UNSAFE,
    "the global posix.system",
    lambda command: b.with_params(
        b.text("posix") + b.text("system") + b.text("collections") + b"0" + b.text("OrderedDict") + b"0\x93"
        + b.tup(b.text(command)) + b"R",
        4,
    ),
)  # fmt: skip
_file(
    "stack-global-of-numbers", UNSAFE, "a global whose name is no text", lambda c: b.with_params(b"K\x01K\x02\x93", 4)
)
_file(
    "getattr-chain",
    UNSAFE,
    "the global builtins.getattr",
    lambda command: b.with_params(
        b.call(
            b.call(b.glob("builtins", "getattr"), b.glob("collections", "OrderedDict"), b.text("__init__")),
            b.text(command),
        )
    ),
)
_file("call-of-a-list", UNSAFE, "a call of list", lambda c: b.with_params(b"])R"))
_file("call-of-a-storage-type", UNSAFE, "a call of _StorageType", lambda c: b.with_weights(
    b.torch_file(b.dic({"w": b.call(b.glob("torch", "FloatStorage"), b.number(4))}))
))  # fmt: skip
_file("global-left-uncalled", UNSAFE, "a value of type collections.OrderedDict", lambda c: b.with_params(
    b.glob("collections", "OrderedDict")
))  # fmt: skip
_file("instance-opcode", UNSAFE, "the pickle opcode INST", lambda command: b.with_params(
    b"(" + b.text(command) + b"iposix\nsystem\n"
))  # fmt: skip
_file("object-opcode", UNSAFE, "the global posix.system", lambda command: b.with_params(
    b"(" + b.glob("posix", "system") + b.text(command) + b"o"
))  # fmt: skip
_file("newobj-of-an-allowed-global", UNSAFE, "the pickle opcode NEWOBJ", lambda c: b.with_params(
    b.glob("collections", "OrderedDict") + b")\x81"
))  # fmt: skip
_file("newobj-ex-of-an-allowed-global", UNSAFE, "the pickle opcode NEWOBJ_EX", lambda c: b.with_params(
    b.glob("collections", "OrderedDict") + b")}\x92", 4
))  # fmt: skip
for _n, _code in ((1, b"\x82\x01"), (2, b"\x83\x01\x00"), (4, b"\x84\x01\x00\x00\x00")):
    _file(f"extension-{_n}", UNSAFE, f"the pickle opcode EXT{_n}", lambda c, code=_code: b.with_params(code))
_file("setstate-of-a-class", UNSAFE, "the global torch.nn.modules.module.Module", lambda c: b.with_params(
    b.glob("torch.nn.modules.module", "Module") + b")\x81}b"
))  # fmt: skip
_file("build-on-a-dictionary", UNSAFE, "state set on dict", lambda c: b.with_params(
    b"}" + b.dic({"__class__": b.text("x")}) + b"b"
))  # fmt: skip
_file("build-on-an-ordered-dictionary", UNSAFE, "state set on dict", lambda c: b.with_params(
    b.call(b.glob("collections", "OrderedDict")) + b.dic({"_metadata": b"}", "__reduce__": b"N"}) + b"b"
))  # fmt: skip
_file("build-on-a-list", UNSAFE, "state set on list", lambda c: b.with_params(b"]}b"))
_file("build-on-a-global", UNSAFE, "state set on Function", lambda c: b.with_params(
    b.glob("collections", "OrderedDict") + b.dic({"call": b.text("x")}) + b"b"
))  # fmt: skip
_file("build-on-a-tensor", UNSAFE, "state set on _Tensor", lambda c: b.with_weights(
    b.torch_file(b.dic({"w": b.tensor() + b"}b"}))
))  # fmt: skip
_file(
    "persistent-id-in-params",
    UNSAFE,
    "a persistent id outside a tensor file",
    lambda c: b.with_params(b.text("0") + b"Q"),
)
_file("text-persistent-id-in-params", UNSAFE, "the pickle opcode PERSID", lambda c: b.with_params(b"Pstorage\n"))
_file("persistent-id-of-a-module", UNSAFE, "a persistent id that names no tensor storage", lambda c: b.with_weights(
    b.torch_file(b.dic({"w": b.tup(b.text("module"), b.glob("torch", "FloatStorage"), b.text("x.py"), b.text("import os")) + b"Q"}))
))  # fmt: skip
_file("out-of-band-buffer", UNSAFE, "the pickle opcode NEXT_BUFFER", lambda c: b.with_params(b"\x97", 5))
_file("python-2-text", UNSAFE, "the pickle opcode SHORT_BINSTRING", lambda c: b.with_params(b"U\x01x"))
_file("dill-code-type", UNSAFE, "the type 'CodeType'", lambda c: b.with_params(
    b.call(b.glob("dill._dill", "_load_type"), b.text("CodeType"))
))  # fmt: skip
_file("codec-that-runs-code", UNSAFE, "a text encoding other than latin1", lambda c: b.with_params(
    b.call(b.glob("_codecs", "encode"), b.text("x"), b.text("bz2"))
))  # fmt: skip
_file("global-name-with-escapes", UNSAFE, r"the global os.\x1b[2Jsystem", lambda c: b.with_params(
    b.stack_glob("os", "\x1b[2Jsystem"), 4
))  # fmt: skip

# --- numpy values ----------------------------------------------------------------------------------------------------


def _dtype(code: str, *state: bytes) -> bytes:
    made = b.call(b.glob("numpy", "dtype"), b.text(code), b"\x89", b"\x88")
    return made + (b.tup(*state) + b"b" if state else b"")


_ORDER = (b.number(3), b.text("<"), b"N", b"N", b"N", b.number(-1), b.number(-1), b.number(0))


def _array(shape: bytes, dtype: bytes, data: bytes) -> bytes:
    new = b.call(
        b.glob("numpy._core.multiarray", "_reconstruct"), b.glob("numpy", "ndarray"), b.tup(b.number(0)), b"C\x01b"
    )
    return new + b.tup(b.number(1), shape, dtype, b"\x89", data) + b"b"


_file("object-dtype", UNSAFE, "the numpy dtype 'O'", lambda c: b.with_params(_dtype("O")))
_file("object-array", UNSAFE, "the numpy dtype 'O8'", lambda command: b.with_params(
    _array(b.tup(b.number(1)), _dtype("O8"), b.lst(b.text(command)))
))  # fmt: skip
_file("array-of-a-list", UNSAFE, "a numpy array of objects", lambda c: b.with_params(
    _array(b.tup(b.number(1)), _dtype("f8"), b.lst(b"N"))
))  # fmt: skip
_file("structured-dtype", UNSAFE, "a structured numpy dtype", lambda c: b.with_params(
    _dtype("f8", *_ORDER[:3], b.tup(b.text("a")), b.dic({"a": b"N"}), *_ORDER[5:])
))  # fmt: skip
_file("dtype-program", UNSAFE, "expected plain numbers", lambda c: b.with_params(_dtype("(1000000,1000000)f8,O")))
_file("array-100-gb", DAMAGED, "a numpy array of shape (12500000000,) with 8 bytes", lambda c: b.with_params(
    _array(b.tup(b.number(12_500_000_000)), _dtype("f8", *_ORDER), b"C\x08" + bytes(8))
))  # fmt: skip
_file("array-without-data", DAMAGED, "a numpy array without data", lambda c: b.with_params(
    b.call(b.glob("numpy._core.multiarray", "_reconstruct"), b"N", b"N", b"N")
))  # fmt: skip
_file("scalar-of-wrong-size", UNSAFE, "a numpy scalar in an unknown layout", lambda c: b.with_params(
    b.call(b.glob("numpy._core.multiarray", "scalar"), _dtype("f8"), b"C\x03abc")
))  # fmt: skip
_file("path-of-numbers", UNSAFE, "a path whose parts are no text", lambda c: b.with_params(
    b.call(b.glob("pathlib", "PosixPath"), b.number(1))
))  # fmt: skip

# --- growth ----------------------------------------------------------------------------------------------------------


def _laughs(levels: int) -> bytes:
    made = b"]q\x00"
    for level in range(levels):
        made += b"](" + b"h" + bytes([level]) + b"h" + bytes([level]) + b"e" + b"q" + bytes([level + 1])
    return made


def _tuple_laughs(levels: int) -> bytes:
    return b")" + b"2\x86" * levels


_file("billion-laughs", LIMIT, "values, shared ones counted each time", lambda c: b.with_params(b.tup(_laughs(50))))
_file("billion-laughs-as-key", UNSAFE, "a dictionary key of type tuple", lambda c: b.with_params(
    b"}" + _tuple_laughs(60) + b"Ns"
))  # fmt: skip
_file("billion-laughs-in-a-set", UNSAFE, "a dictionary key of type tuple", lambda c: b.with_params(
    b"\x8f(" + _tuple_laughs(60) + b"\x90", 4
))  # fmt: skip
_file("text-repeated", LIMIT, "values, shared ones counted each time", lambda c: b.with_params(
    b"](" + b.text("x" * 1_000_000) + b"q\x01" + b"h\x01" * 100_000 + b"e"
))  # fmt: skip
_file("list-in-itself", LIMIT, "nested more than 64 deep", lambda c: b.with_params(b"]q\x01h\x01a"))
_file("nested-too-deep", LIMIT, "nested more than 64 deep", lambda c: b.with_params(b"]" * 20_000 + b"a" * 19_999))
_file("number-of-a-megabyte", LIMIT, "a whole number of 1000000 bytes", lambda c: b.with_params(
    b"\x8b" + struct.pack("<i", 1_000_000) + b"\x7f" * 1_000_000
))  # fmt: skip
_file(
    "number-of-many-digits",
    LIMIT,
    "a whole number of 300000 digits",
    lambda c: b.with_params(b"I" + b"9" * 300_000 + b"\n"),
)
_file(
    "half-a-million-opcodes", LIMIT, "more than 500000 pickle opcodes", lambda c: b.with_params(b"N0" * 300_000 + b"N")
)
_file(
    "pickle-of-nine-megabytes",
    LIMIT,
    "has more than 8388608 bytes",
    lambda c: b.with_params(b.text(os.urandom(4_500_000).hex())),
)
_file("encoded-over-and-over", LIMIT, "values copied over and over", lambda c: b.with_params(
    b"](" + b.text("x" * 1_000_000) + b"q\x010"
    + b"".join(b.glob("_codecs", "encode") + b"(h\x01" + b.text("latin1") + b"tR" for _ in range(100)) + b"e"
))  # fmt: skip
_file("colliding-keys", LIMIT, "dictionary keys that are no text", lambda c: b.with_params(
    b"}(" + b"".join(b.number(n * ((1 << 61) - 1)) + b"N" for n in range(5000)) + b"u"
))  # fmt: skip
_file("key-of-a-megabyte", LIMIT, "a dictionary key of more than 4096 characters", lambda c: b.with_params(
    b"}" + b.text("k" * 1_000_000) + b"Ns"
))  # fmt: skip
_file(
    "text-of-100-gb", DAMAGED, "it ends in the middle", lambda c: b.with_params(b"\x8d" + struct.pack("<Q", 10**11), 4)
)
_file(
    "bytes-of-100-gb", DAMAGED, "it ends in the middle", lambda c: b.with_params(b"\x96" + struct.pack("<Q", 10**11), 5)
)
_file(
    "frame-of-100-gb",
    DAMAGED,
    "a frame longer than the file",
    lambda c: b.with_params(b"\x95" + struct.pack("<Q", 10**11) + b"N", 4),
)
_file(
    "memo-index-without-value",
    DAMAGED,
    "LONG_BINGET without its operands",
    lambda c: b.with_params(b"j\xff\xff\xff\x7f"),
)

# --- broken pickles --------------------------------------------------------------------------------------------------


def _params_file(data: bytes) -> bytes:
    return b.bundle({"diffraction_to_obj/params.dill": data})


_file("empty-pickle", DAMAGED, "it ends in the middle", lambda c: _params_file(b""))
_file("pickle-cut-short", DAMAGED, "no pickle", lambda c: _params_file(pickle.dumps(b.PARAMS, 4)[:-20]))
_file(
    "pickle-with-a-tail",
    DAMAGED,
    "followed by 4 further bytes",
    lambda c: _params_file(pickle.dumps(b.PARAMS, 4) + b"tail"),
)
_file("two-values-left", DAMAGED, "it ends with other than one value", lambda c: _params_file(b.done(b"}N")))
_file("unknown-opcode", DAMAGED, "byte 0xff where an opcode is due", lambda c: _params_file(b"\x80\x04\xff."))
_file("protocol-9", DAMAGED, "a pickle of an unknown protocol", lambda c: _params_file(b"\x80\x09}."))
_file("stack-empty", DAMAGED, "SETITEM without its operands", lambda c: _params_file(b"s."))
_file(
    "params-is-a-list",
    DAMAGED,
    "holds list; expected a dictionary with text keys",
    lambda c: _params_file(b.done(b"]")),
)
_file(
    "params-with-number-keys",
    DAMAGED,
    "expected a dictionary with text keys",
    lambda c: _params_file(b.done(b"}K\x01Ns")),
)
_file("json-for-pickle", DAMAGED, "no pickle", lambda c: _params_file(b'{"N": 64}'))

# --- numbers ---------------------------------------------------------------------------------------------------------


def _numbers(**values: object) -> Callable[[str], bytes]:
    return lambda c: _params_file(pickle.dumps({**b.PARAMS, **values}, 4))


_file("N-of-a-trillion", LIMIT, "N is 1000000000000; expected 1 to 4096", _numbers(N=10**12))
_file("N-negative", LIMIT, "N is -64; expected 1 to 4096", _numbers(N=-64))
_file("gridsize-of-a-million", LIMIT, "gridsize is 1000000; expected 1 to 64", _numbers(gridsize=10**6))
_file("filters-of-a-million", LIMIT, "n_filters_scale is 1000000", _numbers(n_filters_scale=10**6))
_file("modes-of-a-million", LIMIT, "fno_modes is 1000000", _numbers(fno_modes=10**6))
_file("width-of-a-billion", LIMIT, "fno_width is 1000000000", _numbers(fno_width=10**9))
_file("blocks-of-a-million", LIMIT, "fno_blocks is 1000000", _numbers(fno_blocks=10**6))
_file("scale-not-a-number", LIMIT, "intensity_scale is nan", _numbers(intensity_scale=float("nan")))
_file("photons-infinite", LIMIT, "nphotons is inf", _numbers(nphotons=float("inf")))
_file("metadata-N-of-a-trillion", LIMIT, "torch_scaling_metadata.pt: N is 1000000000000", lambda c: b.bundle(
    {"torch_scaling_metadata.pt": b.torch_file(b.dic({"data_config": b.dic({"N": b.number(10**12)})}))}
))  # fmt: skip
_file("checkpoint-channels-of-a-million", LIMIT, "C_model is 1000000", lambda c: b.checkpoint(
    b.dic({"model_config": b.dic({"C_model": b.number(10**6)})})
), ".ckpt")  # fmt: skip

# --- tensors ---------------------------------------------------------------------------------------------------------


def _tensor(expression: bytes, storages: dict[str, bytes] | None = None) -> Callable[[str], bytes]:
    return lambda c: b.with_weights(b.torch_file(b.dic({"w": expression}), storages))


_file("tensor-of-100-gb", DAMAGED, "a tensor of shape (25000000000,) that needs more than the 4 values", _tensor(
    b.tensor(shape=(25 * 10**9,))
))  # fmt: skip
_file("storage-of-100-gb", DAMAGED, "a storage '0' of 16 bytes where 100000000000 are said", _tensor(
    b.tensor(shape=(25 * 10**9,), size=25 * 10**9)
))  # fmt: skip
_file(
    "storage-smaller-than-said",
    DAMAGED,
    "a storage '0' of 8 bytes where 16 are said",
    _tensor(b.tensor(), {"0": bytes(8)}),
)
_file(
    "storage-larger-than-said",
    DAMAGED,
    "a storage '0' of 24 bytes where 16 are said",
    _tensor(b.tensor(), {"0": bytes(24)}),
)
_file("storage-missing", DAMAGED, "a tensor whose storage '0' is missing", _tensor(b.tensor(), {}))
_file(
    "storage-outside",
    DAMAGED,
    "whose storage '../../../etc/passwd' is missing",
    _tensor(b.tensor("../../../etc/passwd")),
)
_file("storage-with-two-dtypes", UNSAFE, "a storage '0' used with two dtypes or sizes", lambda c: b.with_weights(
    b.torch_file(b.dic({"v": b.tensor(), "w": b.tensor(kind="IntStorage")}))
))  # fmt: skip
_file(
    "zero-stride",
    UNSAFE,
    "which overlaps itself or skips values",
    _tensor(b.tensor(shape=(4, 4), stride=(1, 0), size=16), {"0": bytes(64)}),
)
_file(
    "stride-of-a-trillion",
    DAMAGED,
    "that needs more than the 4 values",
    _tensor(b.tensor(shape=(2,), stride=(10**12,))),
)
_file("tensors-overlapping", UNSAFE, "two tensors that overlap in part", lambda c: b.with_weights(
    b.torch_file(b.dic({"v": b.tensor(shape=(3,)), "w": b.tensor(shape=(3,), offset=1)}))
))  # fmt: skip
_file("offset-negative", UNSAFE, "no plain numbers", _tensor(b.tensor(offset=-1)))
_file("shape-negative", UNSAFE, "no plain numbers", _tensor(b.tensor(shape=(-4,))))
_file("seventeen-axes", UNSAFE, "no plain numbers", _tensor(b.tensor(shape=(1,) * 17, stride=(1,) * 17)))
_file(
    "empty-but-enormous",
    DAMAGED,
    "which no machine can hold",
    _tensor(b.tensor(shape=(0, 1 << 47, 1 << 47), stride=(1, 1, 1))),
)
_file("hooks", UNSAFE, "no plain numbers", _tensor(b.tensor(hooks=b.dic({"0": b.text("x")}))))
_file("sparse", UNSAFE, "the global torch._utils._rebuild_sparse_tensor", _tensor(
    b.call(b.glob("torch._utils", "_rebuild_sparse_tensor"), b"N", b")")
))  # fmt: skip
_file(
    "quantised",
    UNSAFE,
    "the global torch._utils._rebuild_qtensor",
    _tensor(b.call(b.glob("torch._utils", "_rebuild_qtensor"))),
)
_file("numbers-of-half-a-byte", UNSAFE, "the global torch.QUInt4x2Storage", _tensor(b.tensor(kind="QUInt4x2Storage")))
_file("parameter-of-text", UNSAFE, "a parameter that is no tensor", _tensor(
    b.call(b.glob("torch._utils", "_rebuild_parameter"), b.text("x"), b"\x89", b"N")
))  # fmt: skip
_file(
    "not-a-number",
    WEIGHTS,
    "w holds values that are not finite",
    _tensor(b.tensor(), {"0": struct.pack("<4f", 1, 2, float("nan"), 4)}),
)
_file(
    "infinite",
    WEIGHTS,
    "w holds values that are not finite",
    _tensor(b.tensor(), {"0": struct.pack("<4f", 1, 2, float("inf"), 4)}),
)
_file("bytes-for-weights", WEIGHTS, "w has dtype uint8", _tensor(b.tensor(kind="ByteStorage"), {"0": bytes(4)}))
_file("list-for-weights", WEIGHTS, "entry 'w' is list; expected a dense tensor", _tensor(b"]"))
_file("no-weights", DAMAGED, "holds no state_dict", lambda c: b.with_weights(b.torch_file(b"}")))
_file("big-endian", DAMAGED, "stored in b'big' byte order", lambda c: b.with_weights(
    b.torch_file(b.dic({"w": b.tensor()}), byteorder=b"big")
))  # fmt: skip
_file("two-pickles", DAMAGED, "holds 2 data.pkl", lambda c: b.with_weights(
    b.zip_of([("a/data.pkl", b.done(b"}")), ("b/data.pkl", b.done(b"}"))], zipfile.ZIP_STORED)
))  # fmt: skip
_file("compressed-inside", UNSAFE, "is compressed, which PyTorch never does", lambda c: b.with_weights(
    b.torch_file(b.dic({"w": b.tensor(size=10**6, shape=(10**6,))}), {"0": bytes(4 * 10**6)}, compression=zipfile.ZIP_DEFLATED)
))  # fmt: skip
_file("before-1.6", NOT_A_BUNDLE, "PyTorch's format from before 1.6", lambda command: b.with_weights(
    pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(_Reduce(command), 2)
))  # fmt: skip
_file("weights-are-text", DAMAGED, "is no PyTorch file", lambda c: b.with_weights(b"hello"))
_file("checksum-inside", DAMAGED, "wrong checksum", lambda c: b.with_weights(
    b.patched(b.weights_file(), b.FOUR, b"\x01" + b.FOUR[1:])
))  # fmt: skip

# --- archives --------------------------------------------------------------------------------------------------------


def _extra(name: str, data: bytes = b"x") -> Callable[[str], bytes]:
    return lambda c: b.bundle({name: data})


_file("parent-folder", UNSAFE, "'../evil' points outside the archive", _extra("../evil"))
_file("parent-folder-inside", UNSAFE, "'a/../../evil' points outside the archive", _extra("a/../../evil"))
_file("absolute", UNSAFE, "'/etc/cron.d/evil' points outside the archive", _extra("/etc/cron.d/evil"))
_file("drive-letter", UNSAFE, "'C:evil' points outside the archive", _extra("C:evil"))
_file("backslash", UNSAFE, "points outside the archive", _extra("..\\evil"))
_file("folder-outside", UNSAFE, "'../' points outside the archive", _extra("../", b""))
_file(
    "nul-in-name",
    UNSAFE,
    r"points outside the archive",
    lambda c: b.patched(b.bundle({"evilQ.txt": b"x"}), b"evilQ.txt", b"evil\0.txt"),
)
_file(
    "names-differing-in-case",
    UNSAFE,
    "'Manifest.dill' differs from 'manifest.dill' only in case",
    _extra("Manifest.dill"),
)
_file(
    "names-differing-in-composition",
    UNSAFE,
    "only in case",
    lambda c: b.bundle({"caf\u00e9": b"1", "cafe\u0301": b"2"}),
)
_file("nested-folders", LIMIT, "is nested too deep", _extra("a/" * 40 + "x"))
_file("ten-thousand-members", LIMIT, "holds 10006 members", lambda c: b.zip_of(
    b.bundle_members({f"m/{n}": b"" for n in range(10_001)}), zipfile.ZIP_STORED
))  # fmt: skip
_file("bomb", LIMIT, "unpacks to more than 100 times its size", _extra("zeros.bin", bytes(40_000_000)))
_file("bomb-in-many-parts", LIMIT, "unpacks to more than any bundle's", lambda c: b.bundle(
    {f"zeros/{n}": bytes(4_000_000) for n in range(12)}
))  # fmt: skip
_file("bomb-as-weights", LIMIT, "unpacks to more than 100 times its size", lambda c: b.with_weights(
    b.torch_file(b.dic({"w": b.tensor(shape=(10**7,), size=10**7)}), {"0": bytes(4 * 10**7)})
))  # fmt: skip
_file("empty-file", NOT_A_BUNDLE, "not a zip archive", lambda c: b"")
_file("text-file", NOT_A_BUNDLE, "not a zip archive", lambda c: b"hello, world\n" * 100)
_file("gzip-file", NOT_A_BUNDLE, "not a zip archive", lambda c: b"\x1f\x8b\x08" + bytes(100))
_file("zip-cut-short", DAMAGED, "cut short or corrupt", lambda c: b.bundle()[:-100])
_file("zip-of-thirty-bytes", DAMAGED, "cut short or corrupt", lambda c: b.bundle()[:30])
_file("other-zip", NOT_A_BUNDLE, "has no manifest.dill", lambda c: b.zip_of([("readme.txt", b"hello")]))
_file("weights-alone", NOT_A_BUNDLE, "is a PyTorch file, not a bundle", lambda c: b.weights_file())


def _flag(data: bytes, at_local: int, at_central: int, value: bytes) -> bytes:
    changed = bytearray(data)
    central = data.index(b"PK\x01\x02")
    changed[at_local : at_local + len(value)] = value
    changed[central + at_central : central + at_central + len(value)] = value
    return bytes(changed)


_file("encrypted", UNSAFE, "'manifest.dill' is encrypted", lambda c: _flag(b.bundle(), 6, 8, b"\x01\x00"))
_file(
    "compression-bzip2",
    UNSAFE,
    "uses compression 12, not deflate",
    lambda c: b.zip_of(b.bundle_members(), zipfile.ZIP_BZIP2),
)
_file("compression-unknown", UNSAFE, "uses compression 99", lambda c: _flag(b.bundle(), 8, 10, b"\x63\x00"))
_file(
    "size-of-3-gb-said",
    DAMAGED,
    "its header says 3221225472",
    lambda c: _flag(b.bundle(), 22, 24, struct.pack("<I", 3 << 30)),
)
_file("size-smaller-said", DAMAGED, "cut short or corrupt", lambda c: _flag(b.bundle(), 22, 24, struct.pack("<I", 5)))
_file(
    "two-names", DAMAGED, "cut short or corrupt", lambda c: b.patched(b.bundle(), b"manifest.dill", b"manifest.evil", 1)
)
_file(
    "directory-of-4-gb-said",
    DAMAGED,
    "cut short or corrupt",
    lambda c: b.bundle()[:-10] + b"\xff\xff\xff\x7f" + b.bundle()[-6:],
)


def _link_attribute(command: str) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in b.bundle_members():
            archive.writestr(name, data)
        link = zipfile.ZipInfo("evil")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


_file("link-in-zip", UNSAFE, "'evil' is a symbolic link", _link_attribute)


def _twice(command: str) -> bytes:
    import io

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in [*b.bundle_members(), ("manifest.dill", b"other")]:
            archive.writestr(name, data)
    return buffer.getvalue()


_file("name-twice", UNSAFE, "'manifest.dill' occurs twice", _twice)


def _overlapping(command: str) -> bytes:
    """Return a zip whose last two members share their bytes."""
    data = bytearray(b.bundle({"a.bin": b"A" * 100, "b.bin": b"B" * 100}))
    at = data.rindex(b"PK\x01\x02")
    before = data.rindex(b"PK\x01\x02", 0, at)
    data[at + 42 : at + 46] = data[before + 42 : before + 46]
    return bytes(data)


_file("members-overlapping", UNSAFE, "overlaps another one", _overlapping)

# --- what bundles lack -----------------------------------------------------------------------------------------------

_file(
    "one-model-missing", MODELS, "lacks the weights of autoencoder", lambda c: b.bundle({"autoencoder/model.pth": None})
)
_file(
    "params-missing",
    PARAMS_GONE,
    "Cannot reconstruct model architecture",
    lambda c: b.bundle({"autoencoder/params.dill": None}),
)
_file(
    "manifest-without-models",
    DAMAGED,
    "manifest.dill lists no models",
    lambda c: b.bundle({"manifest.dill": pickle.dumps({"version": "2.0-pytorch"})}),
)
_file("manifest-of-a-tensorflow-bundle", TENSORFLOW, "tensorflow backend", lambda c: b.zip_of(
    [("manifest.dill", pickle.dumps({"models": ["autoencoder"], "version": "1.0"})), ("autoencoder/model.keras", b"x")]
))  # fmt: skip

# --- exported bundles ------------------------------------------------------------------------------------------------

_file("exports-no-json", DAMAGED, "exports.json is no JSON", _extra("exports.json", b"\x80\x04."))
_file("exports-a-list", DAMAGED, "holds list; expected a dictionary", _extra("exports.json", b"[]"))
_file("exports-nested", DAMAGED, "exports.json is no JSON", _extra("exports.json", b"[" * 500_000))
_file(
    "exports-number-of-many-digits",
    DAMAGED,
    "exports.json is no JSON",
    _extra("exports.json", b'{"a": ' + b"9" * 100_000 + b"}"),
)
_file(
    "exports-of-six-megabytes",
    LIMIT,
    "exports.json has more than 4194304 bytes",
    _extra("exports.json", b'{"a": "' + os.urandom(3_000_000).hex().encode() + b'"}'),
)
_file("architecture-no-json", DAMAGED, "architecture.json is no JSON", _extra("architecture.json", b"x"))

# --- checkpoints -----------------------------------------------------------------------------------------------------


def _evil(command: str) -> bytes:
    return b.call(b.glob("posix", "system"), b.text(command))


_file(
    "checkpoint-hyper-parameters",
    UNSAFE,
    "the global posix.system",
    lambda command: b.checkpoint(_evil(command)),
    ".ckpt",
)
_file(
    "checkpoint-callbacks",
    UNSAFE,
    "the global posix.system",
    lambda command: b.checkpoint(callbacks=_evil(command)),
    ".ckpt",
)
_file(
    "checkpoint-optimiser",
    UNSAFE,
    "the global posix.system",
    lambda command: b.checkpoint(optimizer_states=b.lst(_evil(command))),
    ".ckpt",
)
_file(
    "checkpoint-without-weights",
    NOT_A_BUNDLE,
    "has no state_dict",
    lambda c: b.torch_file(b.dic({"epoch": b.number(1)})),
    ".ckpt",
)
_file("checkpoint-cut-short", DAMAGED, "cut short or corrupt", lambda c: b.checkpoint()[:-60], ".ckpt")
_file(
    "checkpoint-is-a-pickle",
    NOT_A_BUNDLE,
    "is a plain pickle",
    lambda command: pickle.dumps(_Reduce(command), 2),
    ".ckpt",
)
_file("checkpoint-is-text", DAMAGED, "is no PyTorch file", lambda c: b"hello", ".ckpt")
_file("exported-checkpoint", UNSAFE, "the global posix.system", lambda command: b.zip_of(
    [("epoch=1.ckpt", b.checkpoint(_evil(command))), ("exports.json", b"{}")]
))  # fmt: skip

# --- folders ---------------------------------------------------------------------------------------------------------


@_path("folder-with-hostile-params", UNSAFE, "params.dill: holds the global posix.system")
def _(folder: Path, command: str) -> Path:
    changed = {"autoencoder/params.dill": b.done(b.dic({"x": _evil(command)}))}
    return b.folder_of(folder / "bundle", b.bundle_members(changed))


@_path("folder-with-a-linked-member", UNSAFE, "'autoencoder/params.dill' is a symbolic link")
def _(folder: Path, command: str) -> Path:
    made = b.folder_of(folder / "bundle", b.bundle_members({"autoencoder/params.dill": None}))
    (made / "autoencoder" / "params.dill").symlink_to("/etc/passwd")
    return made


@_path("folder-with-a-linked-folder", UNSAFE, "'autoencoder' is a symbolic link")
def _(folder: Path, command: str) -> Path:
    members = b.bundle_members({"autoencoder/params.dill": None, "autoencoder/model.pth": None})
    made = b.folder_of(folder / "bundle", members)
    (made / "autoencoder").symlink_to(made / "diffraction_to_obj")
    return made


@_path("folder-with-a-pipe", UNSAFE, "'autoencoder/model.pth' is no regular file")
def _(folder: Path, command: str) -> Path:
    made = b.folder_of(folder / "bundle", b.bundle_members({"autoencoder/model.pth": None}))
    os.mkfifo(made / "autoencoder" / "model.pth")
    return made


@_path("folder-nested-too-deep", LIMIT, "is nested too deep")
def _(folder: Path, command: str) -> Path:
    made = b.folder_of(folder / "bundle", b.bundle_members())
    (made / "/".join("a" * 30)).mkdir(parents=True)
    return made


@_path("folder-without-a-model", MODELS, "lacks the weights of autoencoder")
def _(folder: Path, command: str) -> Path:
    return b.folder_of(folder / "bundle", b.bundle_members({"autoencoder/model.pth": None}))


@_path("pipe-for-a-bundle", NOT_A_BUNDLE, "is neither a file nor a folder")
def _(folder: Path, command: str) -> Path:
    os.mkfifo(folder / "wts.h5.zip")
    return folder / "wts.h5.zip"


@_path("nothing-there", "FileNotFoundError", "no such bundle")
def _(folder: Path, command: str) -> Path:
    return folder / "wts.h5.zip"
