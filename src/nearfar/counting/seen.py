"""Where the image's two axes are in a tensor, and what its units see of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from nearfar.counting.sight import Lost, Sight, View, union

__all__ = ["Factor", "Seen", "joined", "plain", "pointwise", "viewed"]


class Factor(NamedTuple):
    """A part of a tensor's dimension: flattening H and W makes one dimension of two factors.

    Attributes:
        size: how many places.
        axes: the image's axes (0 rows, 1 columns) along which these places lie; often none.
    """

    size: int
    axes: frozenset[int] = frozenset()


Dim = tuple[Factor, ...]


@dataclass(frozen=True)
class Seen:
    """What the units of a tensor see of the image.

    Attributes:
        dims: the tensor's dimensions as factors, slowest first.
        views: what is seen along the image's rows and columns.
        ordered: whether an axis's units still stand in the order that its sight numbers them in.
            Where they do not (windows of a transformer, a class token in front), what each sees is
            known, but not which are neighbours.
    """

    dims: tuple[Dim, ...]
    views: tuple[View, View]
    ordered: tuple[bool, bool] = (True, True)

    @classmethod
    def image(cls, shape: Sequence[int]) -> Seen:
        """Of an image ``[B, C, H, W]`` itself."""
        batch, channels, height, width = shape
        rows, columns = Factor(height, frozenset({0})), Factor(width, frozenset({1}))
        own = Sight.pixels()
        return cls(((Factor(batch),), (Factor(channels),), (rows,), (columns,)), (own, own))

    @classmethod
    def nowhere(cls, shape: Sequence[int], lost: Lost) -> Seen:
        """Of a tensor whose units' places are not known any more."""
        return cls(plain(shape), (lost, lost))

    def axes_in(self, dim: int) -> set[int]:
        """The axes that lie along a dimension."""
        return {axis for factor in self.dims[dim] for axis in factor.axes}

    def placed(self, axis: int) -> int | None:
        """The dimension that is this axis and nothing else, its units in order."""
        found = [d for d in range(len(self.dims)) if axis in self.axes_in(d)]
        alone = len(found) == 1 and [f.axes for f in self.dims[found[0]]] == [{axis}]
        return found[0] if alone and self.ordered[axis] else None

    def with_view(self, axis: int, view: View, size: int | None = None) -> Seen:
        """Another view along an axis; with ``size``, its dimension has so many units now."""
        views = (view, self.views[1]) if axis == 0 else (self.views[0], view)
        dims = self.dims
        if view is Lost.WHOLE:  # places that are not known may still be read all together
            dims = _without(dims, axis)
        elif size is not None:
            at = self.placed(axis)
            new = (Factor(size, frozenset({axis})),)
            dims = tuple(new if d == at else dim for d, dim in enumerate(dims))
        return replace(self, dims=dims, views=views)

    def lost(self, axes: Iterable[int], how: Lost) -> Seen:
        """These axes cannot be followed any further, or are seen as a whole."""
        found = self
        for axis in axes:
            kept = found.views[axis]
            found = found.with_view(axis, kept if kept is Lost.WHOLE else how)
        return found

    def blurred(self, dim: int, size: int) -> Seen:
        """A dimension has another length, and what its units see is not known."""
        return self.lost(self.axes_in(dim), Lost.UNKNOWN).cut(dim, size)

    def cut(self, dim: int, size: int) -> Seen:
        """A dimension of another length, whose units stand somewhere along the same axes."""
        new = (Factor(size, frozenset(self.axes_in(dim))),)
        return self.with_dims(_put(self.dims, dim, new)).shuffled(dim)

    def resized(self, dim: int, size: int, move: Callable[[Sight], Sight]) -> Seen:
        """Units along a dimension read their neighbours: ``move`` takes the sight of old to new."""
        for axis in self.axes_in(dim):
            view = self.views[axis]
            if self.placed(axis) == dim and isinstance(view, Sight):
                return self.with_view(axis, move(view), size)
        return self.blurred(dim, size)

    def mixed(self, dim: int, how: Lost = Lost.WHOLE) -> Seen:
        """Every unit reads all along a dimension: its axes are seen as a whole (or as ``how``)."""
        found = self
        if _length(self.dims[dim]) == 1:  # nothing to mix
            return self.with_dims(_put(self.dims, dim, (Factor(1),)))
        for axis in self.axes_in(dim):
            elsewhere = any(axis in self.axes_in(d) for d in range(len(self.dims)) if d != dim)
            found = found.lost([axis], Lost.UNKNOWN if elsewhere else how)
        return found

    def shuffled(self, dim: int) -> Seen:
        """The units along a dimension are in another order, or some are missing."""
        among = self.axes_in(dim)
        return replace(
            self, ordered=(self.ordered[0] and 0 not in among, self.ordered[1] and 1 not in among)
        )

    def with_dims(self, dims: Sequence[Dim]) -> Seen:
        """The same units in other dimensions; an axis without a dimension shows its first unit."""
        views = list(self.views)
        for axis, view in enumerate(views):
            gone = not any(axis in f.axes for dim in dims for f in dim)
            if isinstance(view, Sight) and gone:
                views[axis] = view.fixed(0)
        return replace(self, dims=tuple(dims), views=(views[0], views[1]))


def plain(shape: Sequence[int]) -> tuple[Dim, ...]:
    """Dimensions without axes."""
    return tuple((Factor(int(n)),) for n in shape)


def pointwise(operands: Sequence[Seen], shape: Sequence[int]) -> Seen:
    """Units that each read the unit at their own place in every operand, broadcast to ``shape``."""
    rank = len(shape)
    fitted = []
    for seen in operands:
        lead = rank - len(seen.dims)
        dims = [*plain(shape[:lead]), *seen.dims][-rank:] if rank else []
        # What is broadcast along a dimension is the same everywhere in it.
        dims = [
            (Factor(int(n)),) if _length(dim) == 1 != n else dim
            for dim, n in zip(dims, shape, strict=True)
        ]
        fitted.append(seen.with_dims(dims))
    total = fitted[0]
    for other in fitted[1:]:
        total = _both(total, other)
    return total


def _both(one: Seen, other: Seen) -> Seen:
    dims: list[Dim] = []
    unclear: set[int] = set()
    for d, (a, b) in enumerate(zip(one.dims, other.dims, strict=True)):
        in_a, in_b = one.axes_in(d), other.axes_in(d)
        if in_a and in_b and a != b:
            unclear |= in_a | in_b
        dims.append(a if in_a else b)
    for axis in (0, 1):  # at home in one dimension here, in another there
        homes = [{d for d in range(len(dims)) if axis in s.axes_in(d)} for s in (one, other)]
        if all(homes) and homes[0] != homes[1]:
            unclear.add(axis)
    views: list[View] = []
    for axis in (0, 1):
        sizes = [f.size for dim in dims for f in dim if axis in f.axes]
        length = 1
        for n in sizes:
            length *= n
        views.append(union(one.views[axis], other.views[axis], length))
    ordered = (one.ordered[0] and other.ordered[0], one.ordered[1] and other.ordered[1])
    merged = Seen(tuple(dims), (views[0], views[1]), ordered)
    for axis, view in enumerate(views):
        merged = merged.with_view(axis, view)
    merged = merged.lost(unclear, Lost.UNKNOWN)
    for axis in unclear:
        merged = replace(merged, dims=_without(merged.dims, axis))
    return merged


def joined(operands: Sequence[Seen], dim: int, shape: Sequence[int]) -> Seen:
    """Concatenated along a dimension."""
    along = {axis for seen in operands for axis in seen.axes_in(dim)}
    blank = (Factor(int(shape[dim])),)
    if not along:
        return pointwise([s.with_dims(_put(s.dims, dim, blank)) for s in operands], shape)
    # What each unit sees is still known; where it stands is not.
    whole = (Factor(int(shape[dim]), frozenset(along)),)
    total = pointwise(
        [s.with_dims(_put(s.dims, dim, whole)) if s.axes_in(dim) else s for s in operands], shape
    )
    return total.shuffled(dim)


def _without(dims: Sequence[Dim], axis: int) -> tuple[Dim, ...]:
    return tuple(tuple(f._replace(axes=f.axes - {axis}) for f in dim) for dim in dims)


def _put(dims: Sequence[Dim], at: int, dim: Dim) -> list[Dim]:
    found = list(dims)
    found[at] = dim
    return found


def _length(dim: Dim) -> int:
    length = 1
    for factor in dim:
        length *= factor.size
    return length


def viewed(seen: Seen, shape: Sequence[int]) -> Seen:
    """Under ``view``: the same units in the same order, other dimensions."""
    rest = [f for dim in seen.dims for f in dim]
    split: set[int] = set()
    dims: list[Dim] = []
    for n in (int(n) for n in shape):
        taken: list[Factor] = []
        have = 1
        while have < n and rest:
            factor = rest.pop(0)
            if factor.size == 1:
                # A factor of one place goes where it is wanted, if anywhere.
                continue
            if n % (have * factor.size) == 0:
                taken.append(factor)
                have *= factor.size
                continue
            part, uneven = divmod(n, have)
            if uneven or factor.size % part:
                lost = {axis for dim in seen.dims for f in dim for axis in f.axes}
                return Seen(plain(shape), seen.views).lost(lost, Lost.UNKNOWN)
            taken.append(Factor(part, factor.axes))
            rest.insert(0, Factor(factor.size // part, factor.axes))
            split |= factor.axes
            have = n
        if n == 1 and rest and rest[0].size == 1:
            taken.append(rest.pop(0))
        dims.append(tuple(taken) or (Factor(n),))
    ordered = (seen.ordered[0] and 0 not in split, seen.ordered[1] and 1 not in split)
    return replace(seen, ordered=ordered).with_dims(dims)
