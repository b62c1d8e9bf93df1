"""Pickles: every plain value comes back, from every protocol and from dill; nothing else does."""

from __future__ import annotations

import collections
import math
import pathlib
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptycho_torch.bundle import limits
from ptycho_torch.bundle.pickle.load import load_plain, look_through
from ptycho_torch.errors import BundleError, DamagedBundleError, LimitExceededError, UnsafeContentError

PROTOCOLS = range(6)

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**120), 2**120)
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=30)
    | st.binary(max_size=30)
)
_keys = st.text(max_size=10) | st.integers(-(2**70), 2**70) | st.tuples(st.integers(), st.text(max_size=5))
_plain = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(_keys, inner, max_size=4)
        | st.sets(_keys, max_size=4)
        | st.frozensets(_keys, max_size=4)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Compare by content and type, not-a-numbers included."""
    return repr(a) == repr(b) or a == b


@given(_plain, st.sampled_from(list(PROTOCOLS)))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert same(load_plain(pickle.dumps(value, protocol), "t"), value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("writer", ["pickle", "dill"])
def test_arrays_paths_and_collections_come_back(protocol: int, writer: str) -> None:
    value = {
        "array": np.arange(6.0).reshape(2, 3),
        "columns": np.asfortranarray(np.ones((2, 3), ">f4")),
        "text": np.array(["a", "bc"]),
        "scalar": np.float32(1.5),
        "flag": np.bool_(True),
        "path": pathlib.PurePosixPath("/data/run 1"),
        "ordered": collections.OrderedDict(a=1, b=2),
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "complex": 1 + 2j,
        "bytes": b"\0\xff",
        "no bytes": b"",
    }
    found = load_plain(pytest.importorskip(writer).dumps(value, protocol=protocol), "t")
    assert list(found) == list(value)
    for name, expected in value.items():
        assert np.array_equal(found[name], expected), name
    assert found["columns"].dtype == ">f4"
    assert type(found["scalar"]) is np.float32
    assert type(found["ordered"]) is dict


@given(st.binary(max_size=200))
def test_bytes_end_in_a_value_or_a_bundle_error(data: bytes) -> None:
    try:
        load_plain(data, "t")
    except BundleError as error:
        assert str(error).startswith("t: holds ")


@given(_plain, st.data())
def test_a_changed_byte_ends_in_a_value_or_a_bundle_error(value: Any, data: st.DataObject) -> None:
    changed = bytearray(pickle.dumps(value, data.draw(st.sampled_from(list(PROTOCOLS)))))
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    found = look_through(bytes(changed))
    try:
        load_plain(bytes(changed), "t")
    except BundleError as error:
        assert found.refusal is not None or isinstance(
            error, (UnsafeContentError, LimitExceededError, DamagedBundleError)
        )
    else:
        assert found.refusal is None


def test_the_message_names_member_and_global() -> None:
    with pytest.raises(UnsafeContentError) as caught:
        load_plain(pickle.dumps(print), "wts.h5.zip: autoencoder/params.dill")
    assert str(caught.value) == (
        "wts.h5.zip: autoencoder/params.dill: holds the global builtins.print; refused, nothing in it was run"
    )


def test_a_class_of_ones_own_is_refused() -> None:
    with pytest.raises(UnsafeContentError, match=r"the global decimal\.Decimal"):
        load_plain(pickle.dumps(__import__("decimal").Decimal(1)), "t")


def test_a_state_dicts_own_state_is_dropped() -> None:
    value = collections.OrderedDict(a=1)
    value._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]  # as torch.nn.Module.state_dict does
    assert load_plain(pickle.dumps(value, 2), "t") == {"a": 1}
    value.other = 1  # type: ignore[attr-defined]
    with pytest.raises(UnsafeContentError, match="state set on dict"):
        load_plain(pickle.dumps(value, 2), "t")


def test_depth_and_count_end_where_the_limits_say(monkeypatch: pytest.MonkeyPatch) -> None:
    value: Any = 1
    for _ in range(limits.MAX_PICKLE_DEPTH):
        value = [value]
    assert load_plain(pickle.dumps(value), "t") == value
    with pytest.raises(LimitExceededError, match="nested more than 64 deep"):
        load_plain(pickle.dumps([value]), "t")
    monkeypatch.setattr(limits, "MAX_PICKLE_ITEMS", 100)
    assert len(load_plain(pickle.dumps(list(range(99))), "t")) == 99
    with pytest.raises(LimitExceededError, match="more than 100 values"):
        load_plain(pickle.dumps(list(range(100))), "t")


def test_shared_values_count_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PICKLE_ITEMS", 100)
    shared = list(range(30))
    with pytest.raises(LimitExceededError, match="shared ones counted each time"):
        load_plain(pickle.dumps([shared] * 4), "t")


def test_numbers_up_to_128_bits_are_read() -> None:
    assert load_plain(pickle.dumps(2**127 - 1), "t") == 2**127 - 1
    assert math.isnan(load_plain(pickle.dumps(float("nan")), "t"))
    with pytest.raises(LimitExceededError, match="a whole number of 130 bits"):
        load_plain(pickle.dumps(2**129), "t")


def test_keys_to_leave_out_are_still_looked_at() -> None:
    assert load_plain(pickle.dumps({"a": 1, "b": [2]}), "t", want=lambda key: key != "b") == {"a": 1}
    with pytest.raises(UnsafeContentError, match=r"the global builtins\.print"):
        load_plain(pickle.dumps({"a": 1, "b": [print]}), "t", want=lambda key: key != "b")


def test_looking_writes_down_globals_calls_and_opcodes() -> None:
    class Danger:
        def __reduce__(self) -> Any:
            return exec, ("raise SystemExit",)

    found = look_through(pickle.dumps({"a": Danger(), "b": np.zeros(2)}, 4))
    assert found.globals[0] == ("builtins", "exec")
    assert ("numpy", "dtype") in found.globals
    assert found.refused_globals == [("builtins", "exec")]
    assert found.calls == ["builtins.exec('raise SystemExit')"]
    assert found.opcodes["STACK_GLOBAL"] == len(found.globals) == 4
    assert str(found.refusal) == "the global builtins.exec"
