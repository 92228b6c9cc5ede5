"""Follows one run of a network: each operator, within the module that calls it, adds to a row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from operator import is_not
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from nearfar.counting.axis_tracking import Tracked, tracked_image, units
from nearfar.counting.cost import CallCost, cost_of
from nearfar.counting.receptive_field import Call, has_rule, propagate, through_layer
from nearfar.counting.table import SUMS, Kind, Reach, Row
from nearfar.errors import InputError
from nearfar.layers.receptive_field import ScaleLayer
from nearfar.pyramid import Pyramid

__all__ = ["Tracer"]

#: What makes a parameter the same parameter, where its numbers lie; and how many these are.
Key = tuple[int, int, int]


@dataclass
class _Layer:
    """A row in the making. ``fields`` holds what each output depends on along rows and columns."""

    name: str
    type: str
    kind: Kind
    output: tuple[int, ...] = ()
    calls: int = 0
    shared_with: str | None = None
    sums: Counter[str] = field(default_factory=Counter)
    fields: list[Sequence[Tracked]] = field(default_factory=list)

    def add_call(self, outputs: Sequence[Tensor], fields: Iterable[Any]) -> None:
        """Enters what one call has put out."""
        if not self.calls and outputs:
            self.output = tuple(int(n) for n in outputs[0].shape[1:])
        self.calls += 1
        if self.kind not in ("other", "product"):
            self.sums["units"] += sum(t.numel() for t in outputs)
        if self.kind != "product":
            self.sums["memory"] += sum(t.numel() * t.element_size() for t in outputs)
        self.fields.extend(pair for pair in fields if pair is not None and pair[0] is not None)

    def row(self, image: Sequence[int]) -> Row:
        """The row, for an image of this height and width."""
        fields = [[axis.size for axis in pair] for pair in self.fields]
        reach: Reach = "pixels" if fields else "none"
        if any("not known" in pair for pair in fields):
            reach = "not known"
        elif ["whole image"] * 2 in fields:
            reach = "whole image"
        pixels = [[n if isinstance(n, int) else image[a] for a, n in enumerate(p)] for p in fields]
        height, width = map(max, zip(*(pixels or [[0, 0]]), strict=True))
        sums: Any = {name: self.sums[name] for name in SUMS}
        return Row(
            *(self.name, self.type, self.kind, self.output),
            **sums,
            field=(height, width) if reach == "pixels" else None,
            reach=reach,
            covers=any(all(f[a].covers(image[a]) for a in (0, 1)) for f in self.fields),
            calls=self.calls,
            shared_with=self.shared_with,
        )


@dataclass
class _Frame:
    """A module that is running, and the scale layer that it is or belongs to."""

    path: str
    layer: _Layer | None = None
    operators: Counter[str] = field(default_factory=Counter)


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every operator of a network's run on ``image``, ``[1, C, H, W]``.

    Attributes:
        at_work: whether an error that comes out of the run is the tracer's own, not the network's.

    Raises:
        InputError: the network has parameters that have no shape yet.
    """

    def __init__(self, model: nn.Module, image: Tensor, biases: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.at_work = False
        self._image = [int(n) for n in image.shape[-2:]]
        self._biases = biases
        self._stack: list[_Frame] = []
        self._layers: dict[tuple[str, str, int], _Layer] = {}
        self._modules = dict(model.named_modules())
        self._fields: Any = WeakTensorKeyDictionary({image: tracked_image(image)})
        # Memory that a map was written into by parts: what it holds is not followed.
        self._written: dict[int, Any] = {}
        # The parameters that a tensor still is, reshaped or rescaled; empty if it merely comes from some.
        self._sources: Any = WeakTensorKeyDictionary()
        self._owned: dict[str, dict[Key, None]] = {}
        self._owner: dict[Key, _Layer] = {}
        for path, module in self._modules.items():
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                if is_lazy(parameter):
                    raise InputError(
                        f"the parameter {name} of {path or 'the network'} has no shape yet; run the "
                        f"network once on an image, then count it"
                    )
                storage: int = parameter.untyped_storage()._cdata
                key = storage, int(parameter.storage_offset()), parameter.numel()
                self._sources[parameter] = {key}
                self._owned.setdefault(path, {})[key] = None

    def rows(self) -> tuple[Row, ...]:
        """The layers, in the order in which they began, and what holds parameters that none used."""
        for path, keys in self._owned.items():
            own = [layer for (p, *_), layer in self._layers.items() if p == path]
            own = own if self._leaf(path) else []
            if own or not keys.keys() <= self._owner.keys():
                layer = own[0] if own else self._layer(path, "", 0, "other")
                for key in keys:
                    self._count(layer, key, names_owner=layer.kind == "other")
        # What only hands its parameters to a layer (a parametrisation) is no layer.
        return tuple(
            layer.row(self._image)
            for (path, *_), layer in self._layers.items()
            if layer.kind != "other"
            or layer.sums["parameters"]
            or (layer.calls and self._leaf(path))
        )

    def _leaf(self, path: str) -> bool:
        return next(self._modules[path].children(), None) is None

    def _layer(self, path: str, operator: str, ordinal: int, kind: Kind) -> _Layer:
        """A module's n-th operator of this name, or the module itself; a new one if there is none."""
        if (path, operator, ordinal) not in self._layers:
            whole = operator == "" or self._leaf(path)
            name = path if whole else f"{path}/{operator}".removeprefix("/")
            name += f"#{ordinal + 1}" if ordinal else ""
            described = type(self._modules[path]).__name__ if whole else operator
            self._layers[path, operator, ordinal] = _Layer(name or described, described, kind)
        return self._layers[path, operator, ordinal]

    def _count(self, layer: _Layer, key: Key, names_owner: bool) -> bool:
        """Counts a parameter in the layer that uses it first; any other may name that one."""
        owner = self._owner.get(key)
        if owner is None:
            self._owner[key] = layer
            layer.sums["parameters"] += key[2]
        elif names_owner and owner is not layer:
            layer.shared_with = layer.shared_with or owner.name
        return owner is None

    # Operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not hasattr(func, "overloadpacket") or func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        if not has_rule(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self.at_work = True
        if outputs := list(_tensors(result)):
            schema = func._schema.arguments
            arguments = {a.name: kwargs.get(a.name, a.default_value) for a in schema}
            arguments |= {a.name: value for a, value in zip(schema, args, strict=False)}
            self._follow(func, arguments, outputs)
        self.at_work = False
        return result

    def _follow(self, func: Any, arguments: dict[str, Any], outputs: list[Tensor]) -> None:
        trackers = [partial(self._tracked, axis) for axis in (0, 1)]
        calls = [
            Call(func, arguments, outputs, tracked, self._sources.__contains__, axis)
            for axis, tracked in enumerate(trackers)
        ]
        cost = cost_of(calls)
        fields = list(zip(*map(propagate, calls), strict=True))
        if cost is not None:
            self._enter(calls[0], cost, fields[0])
        sources = [self._sources[t] for t in _tensors(arguments) if t in self._sources]
        storage, size = outputs[0].untyped_storage(), outputs[0].numel() * outputs[0].element_size()
        before = [tracked(outputs[0]) for tracked in trackers]
        changes = fields[0][0] is not None and any(map(is_not, before, fields[0]))
        if func._schema.is_mutable and changes and size < storage.nbytes():
            self._written[storage._cdata] = storage
        for output, pair in zip(outputs, fields, strict=True):
            self._fields.pop(output, None)
            if pair[0] is not None:
                self._fields[output] = pair
            elif sources and output not in self._sources:
                self._sources[output] = set() if cost else set().union(*sources)

    def _tracked(self, axis: int, value: Any) -> Tracked | None:
        """What a value depends on along an axis; ``None`` if not on the image."""
        if not isinstance(value, Tensor):
            return None
        if self._written and value.untyped_storage()._cdata in self._written:
            return Tracked(axis, "not known", units(value.dim()))
        return self._fields[value][axis] if value in self._fields else None

    def _enter(self, call: Call, cost: CallCost, fields: Any) -> None:
        """Adds an operator to its layer."""
        frame = self._stack[-1] if self._stack else _Frame("")
        layer, sums = frame.layer, Counter[str]()
        if layer is None:
            name = call.func.overloadpacket.__name__.strip("_").removesuffix("_with_indices")
            layer = self._layer(frame.path, name, frame.operators[name], cost.kind)
            frame.operators[name] += 1
            layer.add_call(call.outputs[:1], [fields])
        elif cost.kind == "pool":
            return
        # Below 1 where a layer reads its maps by a table.
        share = Fraction(getattr(self._modules[frame.path], "connected", 1))
        sums["connections"] = int(cost.connections * share)
        sums["multiplications"] = int(cost.multiplications * share)
        if self._biases and cost.bias is not None:
            sums["connections"] += call.outputs[0].numel()
        weights, biases = (
            () if t is None else self._sources.get(t, ()) for t in (cost.weight, cost.bias)
        )
        # Of several that make one weight (direction and length, say) the largest is the weight.
        largest = max(weights, key=lambda key: key[2], default=None)
        for key in [*weights, *(key for key in biases if key not in weights)]:
            weighs = key == largest or (self._biases and key not in weights)
            if self._count(layer, key, names_owner=key == largest) and weighs:
                sums["weights"] += key[2]
        layer.sums += sums

    # Modules

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes which module runs, while this context lasts."""
        handles = []
        try:
            for path, module in self._modules.items():
                enter, leave = partial(self._enter_module, path), partial(self._leave_module, path)
                handles.append(module.register_forward_pre_hook(enter, prepend=True))
                handles.append(module.register_forward_hook(leave, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter_module(self, path: str, module: nn.Module, _: Any) -> None:
        layer = self._stack[-1].layer if self._stack else None
        if layer is None and isinstance(module, ScaleLayer):
            owns = next(module.parameters(), None) is not None
            layer = self._layer(path, "", 0, "scale layer" if owns else "pool")
        self._stack.append(_Frame(path, layer))

    def _leave_module(self, path: str, module: nn.Module, args: Any, kwargs: Any, y: Any) -> None:
        frame, outputs = self._stack.pop(), list(_tensors(y))
        inside = bool(self._stack) and self._stack[-1].layer is not None
        if frame.layer is None:
            if self._leaf(path) and path in self._owned and not frame.operators:
                layer = self._layer(path, "", 0, "other")
                layer.add_call(outputs, [self._fields.get(t) for t in outputs])
        elif isinstance(module, ScaleLayer) and not inside:
            self.at_work = True
            x = args[0] if args else next(iter(kwargs.values()))
            maps = [[self._tracked(axis, t) for t in _tensors(x)] for axis in (0, 1)]
            fields: list[Any] = [None] * len(outputs)
            if None not in maps[0]:
                axes = [through_layer(module, x, parts, outputs) for parts in maps]  # type: ignore[arg-type]
                fields = list(zip(*axes, strict=True))
                for output, pair in zip(outputs, fields, strict=True):
                    self._fields[output] = pair
            frame.layer.add_call(outputs, fields)
            frame.layer.sums["connections"] += module.pooled(x) * outputs[0].numel()
            self.at_work = False


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in a value, within lists, dictionaries and pyramids too."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Pyramid):
        yield from value.levels
    elif isinstance(value, (dict, list, tuple)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
