"""A node of an ONNX graph, and what it is given: sizes, and the numbers that are constants of the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Shape = tuple[int, ...]
Value = int | float | str | tuple[int, ...] | tuple[float, ...]


class ShapeError(ValueError):
    """A node whose result has no size by its rule; the message says why, after the operator's name."""


@dataclass(frozen=True)
class Node:
    """One node of a graph."""

    kind: str
    inputs: tuple[str, ...]
    """Names; empty where one is left out."""
    outputs: tuple[str, ...]
    attributes: Mapping[str, Value] = field(default_factory=dict)

    def whole(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise ShapeError(f"has the attribute {name}, which is no whole number")
        return value

    def wholes(self, name: str, default: Sequence[int]) -> Shape:
        """Return an attribute that is a list of whole numbers, as many as its default has."""
        value = self.attributes.get(name, tuple(default))
        if not isinstance(value, tuple) or len(value) != len(default):
            raise ShapeError(f"has the attribute {name}, which is no list of {len(default)} whole numbers")
        return tuple(map(_as_whole, value))

    def only(self, name: str, *allowed: Value) -> None:
        """Refuse an attribute that says something else than exports say; the first is the default."""
        if self.attributes.get(name, allowed[0]) not in allowed:
            raise ShapeError(f"has the attribute {name} = {self.attributes[name]!r:.40}")


@dataclass(frozen=True)
class Constant:
    """A tensor of the file: its size, and its numbers where they are few enough to say how large something is."""

    shape: Shape
    values: tuple[float, ...] | None


class Given:
    """What a node is given: sizes by position, and numbers where they are constants of the file."""

    def __init__(self, node: Node, shapes: Mapping[str, Shape], constants: Mapping[str, Constant]) -> None:
        """Take a node and what is known so far; raises `ShapeError` for an input that nothing gave before."""
        self.node, self._constants = node, constants
        for name in node.inputs:
            if name and name not in shapes:
                raise ShapeError("takes what no node before it gives")
        self.shapes = [shapes[name] if name else None for name in node.inputs]

    def __len__(self) -> int:
        """Return how many inputs are there."""
        return len(self.shapes)

    def __getitem__(self, at: int) -> Shape:
        """Return the size of an input that must be there."""
        shape = self.shapes[at] if at < len(self.shapes) else None
        if shape is None:
            raise ShapeError(f"lacks its input {at}")
        return shape

    def all(self) -> list[Shape]:
        """Return the sizes of all inputs, which must be there."""
        return [self[at] for at in range(max(len(self), 1))]

    def has(self, at: int) -> bool:
        """Say whether an optional input is there."""
        return at < len(self.shapes) and self.shapes[at] is not None

    def numbers(self, at: int) -> tuple[float, ...]:
        """Return the numbers of an input that must be a constant of the file, in one axis."""
        constant = self._constants.get(self.node.inputs[at]) if self.has(at) else None
        if constant is None:
            raise ShapeError("has a size that is no constant of the file")
        if constant.values is None or len(constant.shape) > 1:
            raise ShapeError("has a size that cannot be read")
        return constant.values

    def wholes(self, at: int) -> Shape:
        """Return the whole numbers of an input that must be a constant."""
        return tuple(map(_as_whole, self.numbers(at)))

    def axes(self, at: int, rank: int) -> Shape:
        """Return different axes of `rank`, counted from the front, from a constant."""
        return distinct_axes(self.wholes(at), rank)


def _as_whole(value: float) -> int:
    if isinstance(value, float) and not value.is_integer():
        raise ShapeError(f"has a size of {value}")
    return int(value)


def one_axis(axis: int, rank: int) -> int:
    """Return an axis of `rank`, counted from the front."""
    if not -rank <= axis < rank:
        raise ShapeError(f"has the axis {axis} of {rank}")
    return axis % rank


def distinct_axes(axes: Sequence[int], rank: int) -> Shape:
    """Return axes of `rank`, counted from the front, none of them twice."""
    found = tuple(one_axis(axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise ShapeError("names an axis twice")
    return found
