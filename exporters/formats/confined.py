"""Give up files, network and other processes for the rest of a process's life: a seccomp filter with a list of what stays allowed.

Arithmetic in memory and the pipes that are open already are all that is left; every other system call answers "not permitted".
"""

from __future__ import annotations

import ctypes
import platform
import sys

from ptycho_torch.errors import ConfigurationError

# Audit number of the architecture, number of seccomp(2), and of the calls that stay; from the kernel's own tables.
_TABLES: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E,
        317,
        (
            # read write close fstat poll lseek mmap mprotect munmap brk, signals, pread64 writev sched_yield mremap madvise
            0, 1, 3, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17, 20, 24, 25, 28,
            # nanosleep getpid exit uname getrusage sysinfo times sigaltstack gettid futex sched_getaffinity restart clocks
            35, 39, 60, 63, 98, 99, 100, 131, 186, 202, 204, 219, 228, 230,
            # exit_group getcpu getrandom membarrier rseq
            231, 309, 318, 324, 334,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        277,
        (
            57, 62, 63, 64, 66, 67, 73, 80, 93, 94, 98, 101, 113, 115, 123, 124, 128, 132, 134, 135, 139, 153, 160, 165, 168, 172,
            178, 179, 214, 215, 216, 222, 226, 233, 278, 283, 293,
        ),
    ),
}  # fmt: skip
_SET_NO_NEW_PRIVILEGES = 38
_MODE_FILTER, _ALL_THREADS = 1, 1
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _NOT_PERMITTED, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE = 0, 4


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction)))


def confine() -> None:
    """Confine this process, all its threads included, for good.

    Raises:
        ConfigurationError: the system has no such means, or the kernel refuses; nothing is confined then.
    """
    if sys.platform != "linux" or platform.machine() not in _TABLES:
        raise ConfigurationError(f"{sys.platform} on {platform.machine()} offers no seccomp filter")
    architecture, seccomp, allowed = _TABLES[platform.machine()]
    steps = [
        (_LOAD, 0, 0, _OFFSET_ARCHITECTURE),
        (_JUMP_IF_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _OFFSET_NUMBER),
    ]
    for number in allowed:
        steps += [(_JUMP_IF_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    steps.append((_RETURN, 0, 0, _NOT_PERMITTED))
    filters = (_Instruction * len(steps))(*(_Instruction(*step) for step in steps))
    program = _Program(len(steps), filters)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        raise ConfigurationError("the kernel does not let this process give up privileges")
    if libc.syscall(seccomp, _MODE_FILTER, _ALL_THREADS, ctypes.byref(program)):
        raise ConfigurationError(f"the kernel refuses a seccomp filter (error {ctypes.get_errno()})")
