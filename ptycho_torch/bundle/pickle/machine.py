"""A pickle machine of our own: a stack, a memo and plain containers, with nothing in it that could run foreign code.

Python's unpickler is made to call whatever a file names; this one has no import, no attribute access and no instance
construction at all. It either loads (`judge`: the first thing that no model needs ends it) or looks (`judge=False`:
what is not allowed is written down, stands for nothing, and the rest is followed, so that a report is complete).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from ptycho_runtime.files import printable
from ptycho_torch.bundle import limits
from ptycho_torch.bundle.pickle.allowed import Array, Dtype, Function, Global, Record, RecordType, check_key
from ptycho_torch.bundle.pickle.findings import Findings, Nothing, outline
from ptycho_torch.bundle.pickle.operands import Operands
from ptycho_torch.errors import BundleError, DamagedBundleError, LimitExceededError, UnsafeContentError

_MAX_LISTED = 20_000  # globals and calls kept for a report


class Machine(Operands):
    """Follows one pickle."""

    def __init__(
        self,
        data: bytes,
        table: Mapping[Global, Any],
        load_storage: Callable[[Any], Any] | None,
        findings: Findings,
        *,
        judge: bool,
        skippable: Callable[[Global], bool] | None = None,
    ) -> None:
        """Take the pickle, what its globals may stand for, and what a persistent id stands for (None: refused).

        `skippable` says which globals, unknown here, may stand for nothing: what is made of them is nothing either, and
        whoever wants the value refuses it then.
        """
        super().__init__(data)
        self._table = table
        self._load_storage = load_storage
        self.findings = findings
        self._judge = judge
        self._skippable = skippable
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._other_keys = 0
        self._work_bytes = 0

    def run(self) -> Any:
        """Return the pickled value, with stand-ins in it.

        Raises:
            UnsafeContentError: an opcode, global or call that no model needs.
            LimitExceededError: more of something than any model has.
            DamagedBundleError: bytes that are no pickle.
        """
        if len(self.data) > limits.MAX_PICKLE_BYTES:
            raise LimitExceededError(
                f"a pickle of {len(self.data)} bytes; a bundle's has at most {limits.MAX_PICKLE_BYTES}"
            )
        data, size, steps, counts = self.data, len(self.data), _STEP_OF, [0] * 256
        code = None
        try:
            for _ in range(limits.MAX_PICKLE_OPS):
                at = self.at
                if at >= size:
                    raise DamagedBundleError("bytes that are no pickle (it ends in the middle)")
                code = data[at]
                step = steps[code]
                if step is None:
                    raise DamagedBundleError(f"bytes that are no pickle (byte {code:#04x} where an opcode is due)")
                self.at = at + 1
                counts[code] += 1
                if code in _REFUSED:
                    self._refuse(UnsafeContentError(f"the pickle opcode {_NAMES[code]}, which no model needs"))
                if code == _STOP:
                    return self._stop()
                step(self)
        except (IndexError, KeyError, struct.error) as error:
            name = "the start" if code is None else _NAMES[code]
            raise DamagedBundleError(f"bytes that are no pickle ({name} without its operands)") from error
        finally:
            self.findings.opcodes |= {_NAMES[code]: count for code, count in enumerate(counts) if count}
        raise LimitExceededError(f"more than {limits.MAX_PICKLE_OPS} pickle opcodes")

    def _stop(self) -> Any:
        if len(self._stack) != 1 or self._marks:
            raise DamagedBundleError("bytes that are no pickle (it ends with other than one value)")
        if self.at != len(self.data):
            self._refuse(DamagedBundleError(f"a pickle followed by {len(self.data) - self.at} further bytes"))
        self.findings.end = self.at
        return self._stack[0]

    def _refuse(self, error: BundleError) -> None:
        if self._judge:
            raise error
        self.findings.refusal = self.findings.refusal or error

    # the stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _top(self) -> Any:
        return self._stack[-1]

    def _pop_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _drop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    # numbers and text

    def _text(self, length: int) -> None:
        try:
            self._push(self.take(length).decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError as error:
            raise DamagedBundleError("bytes that are no pickle (text in no encoding)") from error

    def _integer(self, value: int) -> None:
        if value.bit_length() > limits.MAX_INTEGER_BITS:
            raise LimitExceededError(f"a whole number of {value.bit_length()} bits")
        self._push(value)

    def _decimal(self) -> None:
        line = self.line()
        if line in ("00", "01"):
            self._push(line == "01")
            return
        digits = line.removesuffix("L")
        if len(digits) > limits.MAX_INTEGER_BITS:
            raise LimitExceededError(f"a whole number of {len(digits)} digits")
        try:
            value = int(digits)
        except ValueError as error:
            raise DamagedBundleError(f"bytes that are no pickle ({printable(digits)} is no number)") from error
        self._integer(value)

    def _long(self, length: int) -> None:
        if length * 8 > limits.MAX_INTEGER_BITS + 8:
            raise LimitExceededError(f"a whole number of {length} bytes")
        self._integer(int.from_bytes(self.take(length), "little", signed=True))

    def _float_text(self) -> None:
        line = self.line()
        try:
            self._push(float(line[:100]))
        except ValueError as error:
            raise DamagedBundleError(f"bytes that are no pickle ({printable(line)} is no number)") from error

    def _unicode_text(self) -> None:
        try:
            self._push(self.raw_line().decode("raw-unicode-escape"))
        except UnicodeDecodeError as error:
            raise DamagedBundleError("bytes that are no pickle (text in no encoding)") from error

    def _proto(self) -> None:
        if self.take(1)[0] > 5:
            raise DamagedBundleError("a pickle of an unknown protocol; expected 0 to 5")

    def _frame(self) -> None:
        if self.number(8) > len(self.data) - self.at:
            raise DamagedBundleError("bytes that are no pickle (a frame longer than the file)")

    # containers

    def _extend(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Nothing):
            raise UnsafeContentError(f"values appended to {type(target).__name__}")

    def _append(self) -> None:
        item = self._pop()
        self._extend([item])

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if isinstance(target, Nothing):
            return
        if type(target) is not dict or len(items) % 2:
            raise UnsafeContentError(f"items set on {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Nearly all keys are short texts; what is said of others is not needed for them.
            if type(key) is not str or len(key) > limits.MAX_KEY_LENGTH:
                if isinstance(key, Nothing):
                    self._refuse_unmade(key, "a dictionary key")
                    continue
                self._count_key(key)
            target[key] = value

    def _count_key(self, key: Any) -> None:
        check_key(key)
        if not isinstance(key, str):
            self._other_keys += 1
            if self._other_keys > limits.MAX_OTHER_KEYS:
                raise LimitExceededError(f"more than {limits.MAX_OTHER_KEYS} dictionary keys that are no text")

    def _set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _add_items(self) -> None:
        items = self._pop_mark()
        target = self._top()
        if isinstance(target, Nothing):
            return
        if not isinstance(target, set):
            raise UnsafeContentError(f"items added to {type(target).__name__}")
        for item in items:
            if isinstance(item, Nothing):
                self._refuse_unmade(item, "a member of a set")
                continue
            self._count_key(item)
            target.add(item)

    def _dict(self) -> None:
        items = self._pop_mark()
        self._push({})
        self._set_items(items)

    def _frozenset(self) -> None:
        items = self._pop_mark()
        for item in items:
            if isinstance(item, Nothing):
                self._refuse_unmade(item, "a member of a set")
                continue
            self._count_key(item)
        self._push(frozenset(item for item in items if not isinstance(item, Nothing)))

    def _refuse_unmade(self, value: Nothing, place: str) -> None:
        self._refuse(UnsafeContentError(f"{value.name} as {place}"))

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        self._stack[-count:] = [tuple(self._stack[-count:])]

    # globals and calls

    def _global(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnsafeContentError("a global whose name is no text")
        wanted = (module, name)
        if len(self.findings.globals) < _MAX_LISTED:
            self.findings.globals.append(wanted)
        if wanted in self._table:
            self._push(self._table[wanted])
            return
        label = f"{printable(module)}.{printable(name)}"
        if self._skippable is not None and self._skippable(wanted):
            if len(self.findings.skipped_globals) < _MAX_LISTED:
                self.findings.skipped_globals.append(wanted)
            self._push(Nothing(f"the global {label}", skipped=True))
            return
        if len(self.findings.refused_globals) < _MAX_LISTED:
            self.findings.refused_globals.append(wanted)
        self._refuse(UnsafeContentError(f"the global {label}"))
        self._push(Nothing(label))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._global(module, name)

    def _extension(self, code: int) -> None:
        self._push(Nothing(f"extension {code}"))

    def _call(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, Function) and isinstance(arguments, tuple):
            # Some calls copy what they are given: bounded together, because a pickle can give one big value many times.
            self._work_bytes += 16 * len(arguments)
            unmade = None
            for argument in arguments:
                if isinstance(argument, (str, bytes)):
                    self._work_bytes += len(argument)
                elif isinstance(argument, (list, tuple)):
                    self._work_bytes += 16 * len(argument)
                elif unmade is None and isinstance(argument, Nothing):
                    unmade = argument
            if self._work_bytes > limits.MAX_PICKLE_WORK_BYTES:
                raise LimitExceededError("values copied over and over")
            if unmade is not None:
                return Nothing(unmade.name, skipped=unmade.skipped)
            try:
                return function.call(*arguments)
            except TypeError as error:
                raise DamagedBundleError(f"{function.name} with {len(arguments)} arguments") from error
        if isinstance(function, Nothing):
            if function.skipped:
                return function
            if len(self.findings.calls) < _MAX_LISTED:
                self.findings.calls.append(f"{function.name}({outline(arguments)})")
            return Nothing(f"result of {function.name}")
        raise UnsafeContentError(f"a call of {type(function).__name__}")

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        self._push(self._call(function, arguments))

    def _new_object(self, opcode: str, *, keywords: bool) -> None:
        if keywords:
            self._pop()
        arguments, kind = self._pop(), self._pop()
        if not isinstance(kind, RecordType) and not (isinstance(kind, Nothing) and kind.skipped):
            self._refuse(UnsafeContentError(f"the pickle opcode {opcode}, which no model needs"))
        self._push(self._call(kind, arguments))

    def _instance(self) -> None:
        module, name = self.line(), self.line()
        arguments = tuple(self._pop_mark())
        self._global(module, name)
        self._push(self._call(self._pop(), arguments))

    def _object(self) -> None:
        kind, *arguments = self._pop_mark()
        self._push(self._call(kind, tuple(arguments)))

    def _build(self) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(target, (Dtype, Array, Record)):
            target.set_state(state)
        elif isinstance(target, Nothing):
            if not target.skipped and len(self.findings.calls) < _MAX_LISTED:
                self.findings.calls.append(f"{target.name}.__setstate__({outline((state,))})")
        elif type(target) is not dict or not isinstance(state, dict) or set(state) - {"_metadata"}:
            # Only a state_dict has state of its own: the versions of its modules, which nothing here needs.
            self._refuse(UnsafeContentError(f"state set on {type(target).__name__}"))

    def _persistent(self, pid: Any) -> None:
        if self._load_storage is None:
            self._refuse(UnsafeContentError("a persistent id outside a tensor file"))
        if self._load_storage is None or isinstance(pid, Nothing):
            self._push(Nothing("persistent id"))
            return
        self._push(self._load_storage(pid))

    def _buffer(self) -> None:
        self._push(Nothing("out-of-band buffer"))

    def _string(self, raw: bytes) -> None:
        self._push(raw.decode("latin-1"))

    def _put(self, index: int) -> None:
        self._memo[index] = self._top()

    def _get(self, index: int) -> None:
        self._push(self._memo[index])

    # The opcodes of which a file of weights has most, each without a call of another step.

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _binput(self) -> None:
        self._memo[self.data[self.at]] = self._stack[-1]
        self.at += 1

    def _binget(self) -> None:
        self._stack.append(self._memo[self.data[self.at]])
        self.at += 1

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _binint1(self) -> None:
        self._stack.append(self.data[self.at])
        self.at += 1

    def _binunicode(self) -> None:
        self._text(int.from_bytes(self.take(4), "little"))

    def _long_binput(self) -> None:
        self._memo[int.from_bytes(self.take(4), "little")] = self._stack[-1]

    def _long_binget(self) -> None:
        self._stack.append(self._memo[int.from_bytes(self.take(4), "little")])


_Step = Callable[[Machine], None]
_STEPS: dict[bytes, tuple[str, _Step]] = {
    b"\x80": ("PROTO", Machine._proto),
    b"\x95": ("FRAME", Machine._frame),
    b".": ("STOP", lambda m: None),
    b"(": ("MARK", Machine._mark),
    b"0": ("POP", Machine._drop),
    b"1": ("POP_MARK", lambda m: (m._pop_mark(), None)[1]),
    b"2": ("DUP", lambda m: m._push(m._top())),
    b"N": ("NONE", lambda m: m._push(None)),
    b"\x88": ("NEWTRUE", lambda m: m._push(True)),
    b"\x89": ("NEWFALSE", lambda m: m._push(False)),
    b"I": ("INT", Machine._decimal),
    b"L": ("LONG", Machine._decimal),
    b"J": ("BININT", lambda m: m._push(m.number(4, True))),
    b"K": ("BININT1", Machine._binint1),
    b"M": ("BININT2", lambda m: m._push(m.number(2))),
    b"\x8a": ("LONG1", lambda m: m._long(m.byte())),
    b"\x8b": ("LONG4", lambda m: m._long(m.number(4, True))),
    b"F": ("FLOAT", Machine._float_text),
    b"G": ("BINFLOAT", lambda m: m._push(struct.unpack(">d", m.take(8))[0])),
    b"V": ("UNICODE", Machine._unicode_text),
    b"X": ("BINUNICODE", Machine._binunicode),
    b"\x8c": ("SHORT_BINUNICODE", lambda m: m._text(m.byte())),
    b"\x8d": ("BINUNICODE8", lambda m: m._text(m.number(8))),
    b"B": ("BINBYTES", lambda m: m._push(m.take(m.number(4)))),
    b"C": ("SHORT_BINBYTES", lambda m: m._push(m.take(m.byte()))),
    b"\x8e": ("BINBYTES8", lambda m: m._push(m.take(m.number(8)))),
    b"\x96": ("BYTEARRAY8", lambda m: m._push(m.take(m.number(8)))),
    b"]": ("EMPTY_LIST", lambda m: m._push([])),
    b"l": ("LIST", lambda m: m._push(m._pop_mark())),
    b"a": ("APPEND", Machine._append),
    b"e": ("APPENDS", lambda m: m._extend(m._pop_mark())),
    b")": ("EMPTY_TUPLE", lambda m: m._push(())),
    b"t": ("TUPLE", lambda m: m._push(tuple(m._pop_mark()))),
    b"\x85": ("TUPLE1", lambda m: m._tuple(1)),
    b"\x86": ("TUPLE2", lambda m: m._tuple(2)),
    b"\x87": ("TUPLE3", lambda m: m._tuple(3)),
    b"}": ("EMPTY_DICT", lambda m: m._push({})),
    b"d": ("DICT", Machine._dict),
    b"s": ("SETITEM", Machine._set_item),
    b"u": ("SETITEMS", lambda m: m._set_items(m._pop_mark())),
    b"\x8f": ("EMPTY_SET", lambda m: m._push(set())),
    b"\x90": ("ADDITEMS", Machine._add_items),
    b"\x91": ("FROZENSET", Machine._frozenset),
    b"p": ("PUT", lambda m: m._put(m.line_number())),
    b"q": ("BINPUT", Machine._binput),
    b"r": ("LONG_BINPUT", Machine._long_binput),
    b"\x94": ("MEMOIZE", Machine._memoize),
    b"g": ("GET", lambda m: m._get(m.line_number())),
    b"h": ("BINGET", Machine._binget),
    b"j": ("LONG_BINGET", Machine._long_binget),
    b"c": ("GLOBAL", lambda m: m._global(m.line(), m.line())),
    b"\x93": ("STACK_GLOBAL", Machine._stack_global),
    b"R": ("REDUCE", Machine._reduce),
    b"\x81": ("NEWOBJ", lambda m: m._new_object("NEWOBJ", keywords=False)),
    b"\x92": ("NEWOBJ_EX", lambda m: m._new_object("NEWOBJ_EX", keywords=True)),
    b"b": ("BUILD", Machine._build),
    b"Q": ("BINPERSID", lambda m: m._persistent(m._pop())),
}
# Followed while looking, never while loading: instances, the extension registry, text ids, buffers, Python 2's text.
_REFUSED_STEPS: dict[bytes, tuple[str, _Step]] = {
    b"i": ("INST", Machine._instance),
    b"o": ("OBJ", Machine._object),
    b"\x82": ("EXT1", lambda m: m._extension(m.byte())),
    b"\x83": ("EXT2", lambda m: m._extension(m.number(2))),
    b"\x84": ("EXT4", lambda m: m._extension(m.number(4, True))),
    b"P": ("PERSID", lambda m: m._persistent(m.line())),
    b"S": ("STRING", lambda m: m._string(m.line().encode("latin-1", "replace"))),
    b"T": ("BINSTRING", lambda m: m._string(m.take(m.number(4, True)))),
    b"U": ("SHORT_BINSTRING", lambda m: m._string(m.take(m.byte()))),
    b"\x97": ("NEXT_BUFFER", Machine._buffer),
    b"\x98": ("READONLY_BUFFER", lambda m: None),
}
_NAMES = {code[0]: name for code, (name, _) in {**_STEPS, **_REFUSED_STEPS}.items()}
_STEP_OF: list[_Step | None] = [None] * 256
for _code, (_, _step) in {**_STEPS, **_REFUSED_STEPS}.items():
    _STEP_OF[_code[0]] = _step
_REFUSED = frozenset(code[0] for code in _REFUSED_STEPS)
_STOP = ord(".")
