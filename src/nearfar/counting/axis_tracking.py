"""Where the units of an image axis are in a tensor, and their receptive fields."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from nearfar.layers.receptive_field import AxisField

__all__ = ["INDEPENDENT", "Tracked", "tracked_image", "united", "units"]

#: The unit of elements that do not depend on the image, such as a class token among patches.
INDEPENDENT = -(2**30)


@dataclass(frozen=True, eq=False)
class Tracked:
    """What the elements of a tensor depend on along one image axis.

    Attributes:
        axis: 0 for rows, 1 for columns.
        field: the fields of a line of units; or that they are the whole image, or not known.
        unit: which unit of the line each element is. As many dimensions as the tensor, but 1 long
            where all elements are alike. Where the field is not known, it only tells units apart.
    """

    axis: int
    field: AxisField | Literal["whole image", "not known"]
    unit: Tensor

    @property
    def dims(self) -> set[int]:
        """The tensor's dimensions along which units differ."""
        return {d for d, n in enumerate(self.unit.shape) if n > 1}

    def in_order(self) -> tuple[int | None, AxisField] | None:
        """The dimension along which units follow each other evenly, and their fields from the first on.

        A single unit has ``None`` for a dimension. ``None`` where units do not follow each other.
        """
        line = self.unit.flatten().tolist()
        step = line[1] - line[0] if len(line) > 1 else 1
        even = step > 0 and line == list(range(line[0], line[-1] + 1, step))
        if not isinstance(self.field, AxisField) or len(self.dims) > 1 or not even:
            return None
        return next(iter(self.dims), None), self.field.slide(len(line), 1, step, -line[0], 1)

    def resized(
        self, dim: int, old: int, new: int, move: Callable[[AxisField, int], AxisField]
    ) -> Tracked:
        """``new`` units read their neighbours among ``old`` along a dimension, by ``move``."""
        if old == new and move(AxisField(), new) == AxisField():
            return self
        order = self.in_order()
        # A single unit may still have neighbours beyond the borders, where a map has its axis.
        single = old == 1 and dim == self.unit.dim() - 2 + self.axis
        if order and (order[0] == dim or (order[0] is None and single)):
            return Tracked(self.axis, move(order[1], new), units(self.unit.dim(), {dim: new}))
        return self.lost({dim: new}) if dim in self.dims else self

    def lost(self, sizes: Mapping[int, int]) -> Tracked:
        """What units depend on is not known any more, unless it is everything; other sizes."""
        if self.field == "whole image":
            return self
        sizes = {**{d: self.unit.shape[d] for d in self.dims}, **sizes}
        return Tracked(self.axis, "not known", units(self.unit.dim(), sizes))

    def mixed(self, dims: Iterable[int]) -> Tracked:
        """Each element reads all along these dimensions, so that elements along them are alike."""
        over = self.dims & set(dims)
        if over and over == self.dims:
            return Tracked(self.axis, "whole image", units(self.unit.dim()))
        return self.lost(dict.fromkeys(over, 1)) if over else self

    def with_unit(self, unit: Tensor) -> Tracked:
        """The elements are other units of the same line."""
        for d, n in enumerate(unit.shape):
            if n > 1 and bool((unit == unit.narrow(d, 0, 1)).all()):
                unit = unit.narrow(d, 0, 1)
        if isinstance(self.field, AxisField) and unit.numel() == 1 and unit.dim() < self.unit.dim():
            # One unit of a line by itself: its neighbours are gone.
            return Tracked(self.axis, self.field.fixed(int(unit)), torch.zeros_like(unit))
        return Tracked(self.axis, self.field, unit)

    @property
    def size(self) -> int | Literal["whole image", "not known"]:
        """Pixels in the largest field."""
        order = self.in_order()
        field = order[1] if order else self.field
        return field.size if isinstance(field, AxisField) else field

    def covers(self, length: int) -> bool:
        """Whether some element depends on all of ``length`` pixels."""
        if not isinstance(self.field, AxisField):
            return self.field == "whole image"
        ends = [self.field.at(unit) for unit in {*self.unit.flatten().tolist()} - {INDEPENDENT}]
        return any(first <= 0 and last >= length - 1 for first, last in ends)


def units(rank: int, sizes: Mapping[int, int] | None = None) -> Tensor:
    """Units that all differ, along dimensions of these sizes; by default a single one."""
    shape = [(sizes or {}).get(d, 1) for d in range(rank)]
    return torch.arange(math.prod(shape)).reshape(shape)


def tracked_image(image: Tensor) -> list[Tracked]:
    """The rows and columns of an image ``[B, C, H, W]``."""
    return [Tracked(a, AxisField(), units(4, {2 + a: image.shape[2 + a]})) for a in (0, 1)]


def united(parts: Sequence[Tracked], rank: int) -> Tracked:
    """Elements that each read their own position in every operand, broadcast to ``rank`` dimensions."""
    one, *others = parts
    if others or one.unit.dim() < rank:
        one, *others = (replace(p, unit=p.unit[(None,) * (rank - p.unit.dim())]) for p in parts)
    return functools.reduce(_combined, others, one)


def _combined(one: Tracked, other: Tracked) -> Tracked:
    if "whole image" in (one.field, other.field):
        return Tracked(one.axis, "whole image", units(one.unit.dim()))
    alike = torch.equal(one.unit, other.unit)
    if alike and one.field == other.field:
        return one
    order, order_other = one.in_order(), other.in_order()
    if order and order_other and len({order[0], order_other[0]} - {None}) < 2:
        fields = [order[1], order_other[1]]
        if order[0] != order_other[0]:  # a single unit, the same for all of the other's line
            single = 0 if order[0] is None else 1
            fields[single] = fields[single].fixed(0)
        unit = max(one.unit, other.unit, key=Tensor.numel)
        line = torch.arange(unit.numel()).reshape(unit.shape)
        return Tracked(one.axis, fields[0].union(fields[1], unit.numel()), line)
    if alike and isinstance(one.field, AxisField) and isinstance(other.field, AxisField):
        field = one.field.union(other.field, int(one.unit.max()) + 1)
        return Tracked(one.axis, field, one.unit)
    return one.lost({d: other.unit.shape[d] for d in other.dims})
