"""Compressed arrays of NTNDArrays as ADCore and pvaPy make them: lz4, bslz4 and blosc, other codecs refused by name."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from ptycho_runtime.errors import PackageMissingError
from ptycho_runtime.files import printable
from ptycho_runtime.live.values import FaultError

CODECS: Final = ("lz4", "bslz4", "blosc")
# pvData's numbers of scalar types, which ADCore puts into `codec.parameters`: the array itself is bytes.
SCALAR_TYPES: Final = {
    1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "uint8", 6: "uint16", 7: "uint32", 8: "uint64", 9: "float32", 10: "float64",
}  # fmt: skip
_MOST_BYTES = 1 << 30  # of one array
_BLOCK_BYTES = 8192  # of bitshuffle
_HEADER_BYTES = 16  # of blosc


def decoded(data: np.ndarray, codec: str, dtype: np.dtype[Any], count: int) -> np.ndarray:
    """Return `count` numbers of a type from compressed bytes.

    Args:
        data: bytes as they came.
        codec: its name.
        dtype: of the numbers.
        count: how many.

    Raises:
        FaultError: another codec, or bytes that do not give so many numbers.
        PackageMissingError: the package that decodes it is not installed.
    """
    size = count * dtype.itemsize
    if codec not in CODECS:
        raise FaultError(
            f"frames are compressed with codec {printable(codec)!r}; expected {', '.join(CODECS)} or none; change it at the detector"
        )
    if not 0 < size <= _MOST_BYTES:
        raise FaultError(f"a frame says that it has {count} numbers; expected 1 to {_MOST_BYTES // dtype.itemsize}")
    raw = np.ascontiguousarray(data).view(np.uint8)
    try:
        found = _DECODERS[codec](raw, dtype, count)
    except ImportError as error:
        raise PackageMissingError(
            f"frames are compressed with {codec}, and {error.name} is not installed; pip install 'ptycho-export[live]'"
        ) from error
    except Exception as error:  # three libraries raise what they like of a stranger's bytes
        raise FaultError(
            f"a frame that says {codec} cannot be decoded ({' '.join(str(error).split())[:120]})"
        ) from error
    if found.size != count:
        raise FaultError(f"a frame that says {codec} gives {found.size} numbers; expected {count}")
    return found


def encoded(values: np.ndarray, codec: str) -> np.ndarray:
    """Return numbers as compressed bytes (uint8), for `replay`."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if codec == "lz4":
        import lz4.block

        return np.frombuffer(lz4.block.compress(flat.tobytes(), store_size=False), np.uint8)
    if codec == "bslz4":
        import bitshuffle

        packed: np.ndarray = np.asarray(bitshuffle.compress_lz4(flat)).view(np.uint8)
        return packed
    from numcodecs import blosc

    return np.frombuffer(blosc.compress(flat, b"lz4", 5), np.uint8)


def _lz4(raw: np.ndarray, dtype: np.dtype[Any], count: int) -> np.ndarray:
    import lz4.block

    return np.frombuffer(lz4.block.decompress(raw.tobytes(), uncompressed_size=count * dtype.itemsize), dtype)


def _bslz4(raw: np.ndarray, dtype: np.dtype[Any], count: int) -> np.ndarray:
    import bitshuffle

    # The library is not told where the bytes end: blocks that lead beyond it are not for it.
    in_block = max(_BLOCK_BYTES // dtype.itemsize // 8 * 8, 128)
    whole, rest = divmod(count, in_block)
    at, leftover = 0, count % 8 * dtype.itemsize
    for _ in range(whole + (rest >= 8)):
        if at + 4 > raw.size:
            raise ValueError("it ends in the middle")
        at += 4 + int.from_bytes(raw[at : at + 4].tobytes(), "big")
    if at + leftover != raw.size:
        raise ValueError(f"its blocks take {at + leftover} bytes, and it has {raw.size}")
    return np.asarray(bitshuffle.decompress_lz4(raw, (count,), dtype))


def _blosc(raw: np.ndarray, dtype: np.dtype[Any], count: int) -> np.ndarray:
    from numcodecs import blosc

    header = raw[:_HEADER_BYTES].tobytes()
    sizes = int.from_bytes(header[4:8], "little"), int.from_bytes(header[12:16], "little")
    if len(header) < _HEADER_BYTES or sizes != (count * dtype.itemsize, raw.size):
        raise ValueError("its header says other sizes")
    return np.frombuffer(blosc.decompress(raw.tobytes()), dtype)


_DECODERS = {"lz4": _lz4, "bslz4": _bslz4, "blosc": _blosc}
