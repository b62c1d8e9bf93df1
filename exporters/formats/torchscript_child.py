"""Run a TorchScript file in a process that can reach no file, no network and no other process: `python -m` this, by `confined_run`.

Standard input brings the file and the feeds, standard output takes the results; both as numbered messages of arrays.
"""

from __future__ import annotations

import io
import resource
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

READY, RESULT, ERROR = b"ready", b"result", b"error"
_LENGTH_BYTES = 8
MAX_MESSAGE_BYTES = 4 << 30
MAX_MEMORY_BYTES = 16 << 30


def send(stream: IO[bytes], kind: bytes, arrays: Sequence[np.ndarray] = ()) -> None:
    """Write a message: what it is, and arrays."""
    body = io.BytesIO()
    for array in (np.frombuffer(kind, np.uint8), *arrays):
        np.lib.format.write_array(body, np.ascontiguousarray(array), allow_pickle=False)
    stream.write(body.tell().to_bytes(_LENGTH_BYTES, "little"))
    stream.write(body.getvalue())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[bytes, list[np.ndarray]]:
    """Return a message's kind and arrays.

    Raises:
        EOFError: the other side is gone.
        ValueError: it is no message.
    """
    head = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(head, "little")
    if len(head) < _LENGTH_BYTES:
        raise EOFError("no message came")
    if length > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message of {length} bytes")
    data = stream.read(length)
    if len(data) < length:
        raise EOFError("half a message came")
    body = io.BytesIO(data)
    arrays = []
    while body.tell() < length:
        arrays.append(np.lib.format.read_array(body, allow_pickle=False))
    return arrays[0].tobytes(), arrays[1:]


def main() -> None:
    """Confine this process, load the file and answer feeds until none come."""
    import torch

    from exporters.formats.confined import confine

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = MAX_MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)
    receive_from, send_to = sys.stdin.buffer, sys.stdout.buffer
    # What is read when first used must be read before files are out of reach.
    warm = torch.jit.trace(torch.nn.Conv2d(1, 1, 3), torch.ones(1, 1, 8, 8))  # type: ignore[no-untyped-call]
    buffer = io.BytesIO()
    torch.jit.save(warm, buffer)
    torch.jit.load(io.BytesIO(buffer.getvalue()))(torch.ones(1, 1, 8, 8))  # type: ignore[no-untyped-call]
    try:
        confine()
    except Exception as error:  # the parent raises it again
        send(send_to, ERROR, [_text(str(error))])
        return
    send(send_to, READY)
    module: Any = None
    while True:
        try:
            _, arrays = receive(receive_from)
        except EOFError:
            return
        try:
            if module is None:
                module = torch.jit.load(io.BytesIO(arrays[0].tobytes()))  # type: ignore[no-untyped-call]
                found: Any = ()
            else:
                with torch.no_grad():
                    found = module(*(torch.from_numpy(array) for array in arrays))
            if not isinstance(found, tuple):
                raise TypeError(f"the file returns a {type(found).__name__}; expected a tuple of tensors")
            send(send_to, RESULT, [value.numpy() for value in found])
        except Exception as error:  # whatever a stranger's file does is the parent's to judge
            send(send_to, ERROR, [_text(f"{type(error).__name__}: {error}")])


def _text(value: str) -> np.ndarray:
    return np.frombuffer(value.encode("utf-8", "replace")[:2000] or b"?", np.uint8)


if __name__ == "__main__":
    main()
