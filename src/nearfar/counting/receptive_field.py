"""What the output of an operator depends on, by what its inputs depend on: a rule for each operator.

Views, permutations, slices and the like move the units that tensors are tracked by; what has a window
over units gives them other fields. An operator without a rule is followed if torch marks it as pointwise,
else decomposed, and if that cannot be, not followed any further.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nearfar.counting.axis_tracking import INDEPENDENT, Tracked, united, units
from nearfar.layers.receptive_field import AxisField, ScaleLayer
from nearfar.pyramid import Pyramid

__all__ = ["Call", "has_rule", "propagate", "through_layer"]

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Call:
    """An operator that has run, along one image axis (0 for rows, 1 for columns).

    Attributes:
        func: the operator.
        arguments: by the names of its schema.
        outputs: the tensors that it has put out.
        tracked: what a value depends on along the axis; ``None`` if not on the image.
        is_parameter: whether a value comes from parameters.
    """

    func: Any
    arguments: dict[str, Any]
    outputs: list[Tensor]
    tracked: Callable[[Any], Tracked | None]
    is_parameter: Callable[[Any], bool]
    axis: int

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def input(self) -> Any:
        """The first argument."""
        return next(iter(self.arguments.values()))

    @property
    def first(self) -> Tracked:
        """What the first argument depends on."""
        return self.tracked(self.input) or _unknown(self)

    @property
    def rank(self) -> int:
        """Dimensions of the first output."""
        return self.outputs[0].dim()

    def inputs(self) -> list[Tracked]:
        """What all arguments depend on that depend on the image."""
        values = self.arguments.values()
        flat = [t for v in values for t in (v if isinstance(v, (list, tuple)) else [v])]
        return [tracked for t in flat if (tracked := self.tracked(t)) is not None]

    def factors(self) -> tuple[Any, Any]:
        """The two factors of a product of matrices."""
        first = 1 if "mat1" in self.arguments or "batch1" in self.arguments else 0
        a, b = [*self.arguments.values()][first : first + 2]
        return a, b


def has_rule(func: Any) -> bool:
    """Whether an operator is followed as it is."""
    packet = func.overloadpacket
    return packet in _RULES or packet in _CONSTANTS or torch.Tag.pointwise in func.tags


def propagate(call: Call) -> list[Tracked | None]:
    """What each output of a call depends on along its axis."""
    if call.func.overloadpacket in _CONSTANTS or not call.inputs():
        return [None] * len(call.outputs)
    default = _each if torch.Tag.pointwise in call.func.tags else _unknown
    result = _RULES.get(call.func.overloadpacket, default)(call)
    if isinstance(result, list):
        return [*result]
    # The position of a maximum depends on what the maximum does; statistics are not followed.
    like = call.outputs[0].shape
    lost = [Tracked(call.axis, "not known", units(t.dim())) for t in call.outputs]
    return [result if t.shape == like else o for t, o in zip(call.outputs, lost, strict=True)]


def _unknown(call: Call) -> Tracked:
    """Not followed; but where all inputs depend on the whole image, so does the output."""
    whole = all(part.field == "whole image" for part in call.inputs())
    return Tracked(call.axis, "whole image" if whole else "not known", units(call.rank))


def _each(call: Call) -> Tracked:
    """Each element on its own."""
    return united(call.inputs(), call.rank)


# Elements put elsewhere


def _moved(call: Call) -> list[Tracked]:
    tracked = call.first
    if not tracked.dims:
        return [tracked.with_unit(tracked.unit.reshape((1,) * t.dim())) for t in call.outputs]
    unit = tracked.unit.expand(call.input.shape)
    if call.func.overloadpacket in _VIEWS:
        return [tracked.with_unit(unit.reshape(call.outputs[0].shape))]
    moved = call.func(unit, **dict([*call.arguments.items()][1:]))
    return [tracked.with_unit(u) for u in ([moved] if isinstance(moved, Tensor) else moved)]


def _joined(call: Call) -> Tracked:
    dim, parts = call["dim"] % call.rank, call.inputs()
    if not any(dim in part.dims for part in parts):
        return united(parts, call.rank)
    if len({part.field for part in parts}) > 1:  # then whose unit is which is not followed
        return united([p.lost({dim: call.outputs[0].shape[dim]}) for p in parts], call.rank)
    tracked = [(t, call.tracked(t)) for t in call["tensors"]]
    apart = torch.tensor(INDEPENDENT)
    lines = [(part.unit if part else apart).expand(t.shape) for t, part in tracked]
    return parts[0].with_unit(torch.cat(lines, dim))


def _stacked(call: Call) -> Tracked:
    dim = call["dim"] % call.rank
    return united([replace(p, unit=p.unit.unsqueeze(dim)) for p in call.inputs()], call.rank)


def _picked(call: Call) -> Tracked:
    dim, tracked = call["dim"] % call.rank, call.first
    return tracked.lost({dim: call.outputs[0].shape[dim]}) if dim in tracked.dims else tracked


# Windows over units. Each function has the new fields along the n-th of a map's last dimensions, by the
# fields of ``old`` units there.


def _windows(
    call: Call, move: Callable[..., AxisField], rank: int = 2, mixes: bool = False
) -> Tracked:
    """Over the last ``rank`` dimensions; ``mixes`` the channels before them."""
    if call.tracked(call.input) is None:  # a map as the filter of something else
        return _unknown(call)
    tracked = call.first.mixed([call.rank - rank - 1] if mixes else [])
    for n in range(rank):
        dim = call.rank - rank + n
        old, new = int(call.input.shape[dim]), int(call.outputs[0].shape[dim])
        tracked = tracked.resized(dim, old, new, partial(move, call=call, n=n, old=old))
    return tracked


def _number(value: Any, n: int) -> int:
    """Of an argument that is a number an axis, or one for all."""
    return value if isinstance(value, int) else value[n % len(value)]


def _slid(field: AxisField, size: int, call: Call, n: int, old: int) -> AxisField:
    kernel = call["weight"].shape[2:] if "weight" in call.arguments else call["kernel_size"]
    stride = call["stride"] or kernel
    more = (_number(call.arguments.get(name, 1), n) for name in ("padding", "dilation"))
    slide = field.spread if call.arguments.get("transposed") else field.slide
    return slide(size, _number(kernel, n), _number(stride, n), *more)


def _convolution(call: Call) -> Tracked:
    return _windows(call, _slid, rank=call["weight"].dim() - 2, mixes=True)


def _padded(field: AxisField, size: int, call: Call, n: int, old: int) -> AxisField:
    pads = call.arguments.get("pad") or call["padding"]
    last = call.rank - 1 - n  # they begin with the last dimension
    return field.slide(size, 1, 1, pads[2 * last] if 2 * last < len(pads) else 0, 1)


def _padding(call: Call) -> Tracked:
    return _windows(call, _padded, rank=call.rank)


def _shared_out(field: AxisField, size: int, call: Call, n: int, old: int) -> AxisField:
    window = lambda j: range(j * old // size, -(-(j + 1) * old // size))  # noqa: E731
    step = Fraction(old, size)
    return field.gather(window, step.denominator, step.numerator, size)


def _adaptive(call: Call) -> Tracked:
    dims = [call.rank - 2, call.rank - 1]
    pooled = call.first.mixed(d for d in dims if call.outputs[0].shape[d] == 1)
    return _windows(replace(call, tracked=lambda _: pooled), _shared_out)


def _step(call: Call, n: int, old: int, new: int) -> Fraction:
    """Old units a new one: from the factor where there is one, else from the sizes."""
    scales = call.arguments.get("scale_factors")
    factor = scales[n] if scales else call.arguments.get(("scales_h", "scales_w")[n])
    return 1 / Fraction(factor).limit_denominator(10_000) if factor else Fraction(old, new)


def _interpolated(
    field: AxisField, size: int, call: Call, n: int, old: int, reach: int, antialias: bool = False
) -> AxisField:
    """Linear (``reach`` 1) or cubic (2)."""
    step = _step(call, n, old, size)
    start = (step - 1) / 2
    if call.arguments.get("align_corners"):
        start, step = Fraction(0), Fraction(old - 1, max(1, size - 1))
    width = reach * (max(Fraction(1), step) if antialias else Fraction(1))
    return field.interpolated(size, start, step, width)


def _nearest(
    field: AxisField, size: int, call: Call, n: int, old: int, offset: Fraction
) -> AxisField:
    step = _step(call, n, old, size)
    unit = lambda j: [math.floor(step * (offset + j))]  # noqa: E731
    return field.gather(unit, step.denominator, step.numerator, size)


def _parted(field: AxisField, size: int, call: Call, n: int, old: int) -> AxisField:
    """Channels become space: each unit becomes several."""
    return field.gather(lambda j: [j * old // size], size // old, 1, size)


def _gathered(field: AxisField, size: int, call: Call, n: int, old: int) -> AxisField:
    """Space becomes channels: several units become one."""
    return field.slide(size, old // size, old // size, 0, 1)


# Sums


def _reduced(call: Call) -> Tracked:
    rank, dim = call.input.dim(), call.arguments.get("dim")
    dims = {d % rank for d in ([dim] if isinstance(dim, int) else dim or range(rank))}
    tracked = call.first.mixed(dims)
    if call.arguments.get("keepdim"):
        return tracked
    return tracked.with_unit(
        tracked.unit.reshape([n for d, n in enumerate(tracked.unit.shape) if d not in dims])
    )


def _along(call: Call) -> Tracked:
    """Each element reads all along one dimension, which stays."""
    return call.first.mixed([call["dim"] % max(1, call.rank)])


def _dense(call: Call) -> Tracked:
    if call.tracked(call["weight"]) is not None:  # weights made from the image
        return Tracked(call.axis, "whole image", units(call.rank))
    return call.first.mixed([call.rank - 1])


def _product(call: Call) -> Tracked:
    """``[…, m, k] · […, k, n]``: every element reads all of k."""
    a, b = call.factors()
    parts = []
    for factor, partner, dim in ((a, b, call.rank - 1), (b, a, call.rank - 2)):
        tracked = call.tracked(factor)
        constant = call.tracked(partner) is None and not call.is_parameter(partner)
        if tracked is not None and constant and dim in tracked.dims:
            # It may read but little: it resizes, say.
            parts.append(tracked.lost({dim: call.outputs[0].shape[dim]}))
        elif tracked is not None:
            parts.append(tracked.mixed([dim]))
    if len(parts) == 2 and call.rank - 2 in parts[0].dims and call.rank - 1 in parts[1].dims:
        # Attention: what both carry into the product is soon read by every unit. Unless the axis runs
        # through the batch too: windows, whose units read their own window alone.
        windows = (parts[0].dims | parts[1].dims) & set(range(call.rank - 2))
        whole = Tracked(call.axis, "whole image", units(call.rank))
        parts = [part.lost({}) for part in parts] if windows else [whole]
    bias = None if a is call.input else call.tracked(call.input)
    return united([*parts, *([] if bias is None else [bias])], call.rank)


def _attended(call: Call) -> Tracked:
    """Each query reads every key and value."""
    over = {"query": (1,), "key": (1, 2), "value": (1, 2)}
    parts = {name: call.tracked(call[name]) for name in over}
    mixed = [p.mixed(call.rank - d for d in over[name]) for name, p in parts.items() if p]
    return united(mixed, call.rank)


def through_layer(
    layer: ScaleLayer, x: Tensor | Pyramid, parts: Sequence[Tracked], outputs: Sequence[Tensor]
) -> list[Tracked]:
    """What the outputs of a layer depend on that states its own receptive fields.

    Args:
        layer: the layer.
        x: its input.
        parts: what each map of the input depends on along one axis.
        outputs: the maps that it has put out.
    """
    if isinstance(x, Pyramid) and x.base is None:
        return [united(parts, t.dim()) for t in outputs]
    rank, axis = parts[0].unit.dim(), parts[0].axis
    orders = [part.mixed([rank - 3]).in_order() for part in parts]
    fields = [order[1] for order in orders if order and order[0] in (rank - 2 + axis, None)]
    sizes = [{rank - 2 + axis: int(t.shape[axis - 2])} for t in outputs]
    if len(fields) < len(parts):
        mixed = [part.mixed([rank - 3]) for part in parts]
        return [united([part.lost(size) for part in mixed], rank) for size in sizes]
    results = layer.receptive_field(x, fields, axis)
    return [Tracked(axis, f, units(rank, size)) for f, size in zip(results, sizes, strict=True)]


def _table(*groups: tuple[Any, str]) -> dict[Any, Any]:
    """Rules by operator, as far as this release of torch has the operators."""
    pairs = [(name, rule) for rule, names in groups for name in names.split()]
    return {getattr(aten, name): rule for name, rule in pairs if hasattr(aten, name)}


def _over(move: Callable[..., AxisField], mixes: bool = False, **options: Any) -> Any:
    return partial(_windows, move=partial(move, **options), mixes=mixes)


#: Take their size from a map and nothing else.
_CONSTANTS = _table(
    (None, "zeros_like ones_like empty_like full_like rand_like bernoulli"),
    (None, "new_zeros new_ones new_empty new_full"),
)
_VIEWS = _table((None, "view _unsafe_view _reshape_alias"))
_RULES: dict[Any, Callable[[Call], Tracked | list[Tracked]]] = _table(
    (_moved, "view _unsafe_view _reshape_alias slice split split_with_sizes select unbind permute"),
    (_moved, "transpose t unsqueeze squeeze repeat roll flip"),
    (_joined, "cat"),
    (_stacked, "stack"),
    (_picked, "index_select"),
    (_padding, "constant_pad_nd reflection_pad2d replication_pad2d"),
    (_convolution, "convolution"),
    (_over(_slid), "max_pool2d_with_indices avg_pool2d"),
    # Of three dimensions the first may be the channels: local response normalisation is made so.
    (partial(_windows, move=_slid, rank=3), "avg_pool3d"),
    (_adaptive, "_adaptive_avg_pool2d adaptive_max_pool2d"),
    (_over(_interpolated, reach=1), "upsample_bilinear2d"),
    (_over(_interpolated, reach=2), "upsample_bicubic2d"),
    (_over(_interpolated, reach=1, antialias=True), "_upsample_bilinear2d_aa"),
    (_over(_interpolated, reach=2, antialias=True), "_upsample_bicubic2d_aa"),
    (_over(_nearest, offset=Fraction(0)), "upsample_nearest2d"),
    (_over(_nearest, offset=Fraction(1, 2)), "_upsample_nearest_exact2d"),
    (_over(_parted, mixes=True), "pixel_shuffle"),
    (_over(_gathered, mixes=True), "pixel_unshuffle"),
    (_reduced, "mean sum amax amin max min logsumexp var std var_mean std_mean prod any all"),
    (_reduced, "linalg_vector_norm norm argmax argmin"),
    (_along, "_softmax _log_softmax _safe_softmax cumsum sort topk"),
    # The statistics that norms take are disregarded.
    (lambda call: call.first, "native_batch_norm _native_batch_norm_legit_no_training"),
    (lambda call: call.first, "_native_batch_norm_legit native_layer_norm native_group_norm"),
    (lambda call: call.first, "instance_norm _fused_rms_norm rms_norm"),
    (_each, "clone _to_copy detach alias copy_ expand lift_fresh dropout native_dropout positive"),
    # Pointwise, though torch does not mark them so.
    (_each, "hardswish hardswish_ _prelu_kernel rrelu_with_noise"),
    (_dense, "linear"),
    (_product, "mm bmm addmm baddbmm"),
    (_attended, "scaled_dot_product_attention"),
)
