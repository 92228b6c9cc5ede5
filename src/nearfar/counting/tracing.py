"""Follows one run of a network: every operator, within the module that calls it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nearfar.counting.amounts import Amount, amount_of
from nearfar.counting.arranging import ARRANGING
from nearfar.counting.calls import Call, bound, everywhere, tensors, unknown
from nearfar.counting.ledger import Entry, Ledger
from nearfar.counting.notes import Notes
from nearfar.counting.operators import CONSTANTS, OPERATORS
from nearfar.counting.products import PRODUCTS
from nearfar.counting.resizing import RESIZING
from nearfar.counting.scale_layers import SCALE_LAYERS, over_maps, over_pyramids
from nearfar.counting.seen import Seen
from nearfar.counting.sight import Lost
from nearfar.layers import PyramidConv2d, ScalePool, SIConv2d
from nearfar.pyramid import Pyramid

__all__ = ["Tracer"]

_RULES = OPERATORS | ARRANGING | PRODUCTS | RESIZING
_KNOWN = {*_RULES, *CONSTANTS}


@dataclass
class _Frame:
    """A module that is running."""

    path: str
    layer: Entry | None = None
    operators: Counter[str] = field(default_factory=Counter)


class Tracer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator and keeps the ledger.

    Args:
        ledger: what to keep.
        biases: whether biases count as connections.

    Attributes:
        fault: an error of the tracer's own, as opposed to the network's.
    """

    def __init__(self, ledger: Ledger, biases: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.fault: Exception | None = None
        self._ledger = ledger
        self._biases = biases
        self._stack: list[_Frame] = []
        self._notes = Notes(ledger.keys)

    def look_at(self, image: Tensor) -> None:
        """Begins with an image ``[1, C, H, W]``."""
        self._notes.write(image, Seen.image(image.shape))

    # Operators

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = getattr(func, "_overloadpacket", None)
        if packet is None or func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        if packet not in _KNOWN and torch.Tag.pointwise not in func.tags:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        try:
            self._follow(func, packet, args, kwargs, result)
        except Exception as fault:
            self.fault = fault
            raise
        return result

    def _follow(
        self, func: Any, packet: Any, args: tuple[Any, ...], kwargs: Any, result: Any
    ) -> None:
        outputs = [
            t
            for t in (result if isinstance(result, (tuple, list)) else [result])
            if isinstance(t, Tensor)
        ]
        if not outputs:
            return
        call = Call(bound(func, args, kwargs), outputs[0], self._notes.seen, self._notes.learnt)
        amount = amount_of(packet, call)
        answers = self._answers(func, packet, call, outputs)
        if amount is not None:
            self._enter(packet, call, amount, answers[0])
        self._notes.watch_memory(func._schema.is_mutable, call, outputs, answers)
        kept = None if any(answers) else self._notes.from_parameters(call, amount is not None)
        for output, answer in zip(outputs, answers, strict=True):
            self._notes.write(output, answer or kept)

    def _answers(
        self, func: Any, packet: Any, call: Call, outputs: list[Tensor]
    ) -> list[Seen | None]:
        if packet in CONSTANTS or not call.inputs():
            return [None] * len(outputs)
        rule: Callable[[Call], Seen | list[Seen]]
        rule = _RULES.get(packet) or (everywhere if torch.Tag.pointwise in func.tags else unknown)
        answer = rule(call)
        if isinstance(answer, list):
            return list(answer)
        found: list[Seen | None] = [answer]
        for other in outputs[1:]:  # a maximum's place is seen from where the maximum is
            like = other.shape == outputs[0].shape
            found.append(answer if like else Seen.nowhere(other.shape, Lost.UNKNOWN))
        return found

    # Layers

    def _enter(self, packet: Any, call: Call, amount: Amount, answer: Seen | None) -> None:
        frame = self._stack[-1] if self._stack else _Frame("")
        entry = frame.layer
        if entry is None:
            name = packet.__name__.strip("_").removesuffix("_with_indices")
            ordinal = frame.operators[name]
            frame.operators[name] += 1
            entry = self._ledger.entry(frame.path, name, ordinal, amount.kind)
            entry.put_out([call.output], [answer])
        elif amount.kind == "pool":
            return
        share = self._ledger.connected(frame.path)
        entry.connections += int(amount.connections * share)
        entry.multiplications += int(amount.multiplications * share)
        if self._biases and amount.bias is not None and amount.kind != "product":
            entry.connections += call.output.numel()
        self._ledger.claim(
            entry, self._notes.sources(amount.weight) or (), self._notes.sources(amount.bias) or ()
        )

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """Notes which module runs, while this context lasts."""
        handles = []
        try:
            for path, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(self._entering(path), prepend=True))
                handles.append(module.register_forward_hook(self._leaving(path), with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, path: str) -> Callable[[nn.Module, Any], None]:
        def hook(module: nn.Module, _: Any) -> None:
            above = self._stack[-1].layer if self._stack else None
            layer = above
            if above is None and isinstance(module, SCALE_LAYERS):
                kind: Any = "pool" if isinstance(module, ScalePool) else "scale layer"
                layer = self._ledger.entry(path, "", 0, kind)
            self._stack.append(_Frame(path, layer))

        return hook

    def _leaving(self, path: str) -> Callable[[nn.Module, Any, Any, Any], None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            frame = self._stack.pop()
            inside = self._stack and self._stack[-1].layer is frame.layer
            outputs = list(tensors([output]))
            if frame.layer is not None and not inside:
                x = args[0] if args else next(iter(kwargs.values()))
                try:
                    self._leave_scale_layer(module, frame.layer, x, outputs)
                except Exception as fault:
                    self.fault = fault
                    raise
                return
            leaf = next(module.children(), None) is None
            if frame.layer is None and leaf and self._ledger.owns(path) and not frame.operators:
                entry = self._ledger.entry(path, "", 0, "other")
                entry.put_out(outputs, [self._notes.seen(t) for t in outputs])

        return hook

    def _leave_scale_layer(self, module: Any, entry: Entry, x: Any, outputs: list[Tensor]) -> None:
        levels = x.levels if isinstance(x, Pyramid) else (x,)
        seen = [self._notes.seen(level) for level in levels]
        known = [s for s in seen if s is not None]
        answers: list[Seen]
        if len(known) < len(seen):
            answers = []
        elif isinstance(x, Pyramid):
            answers = over_pyramids(module, x, known, outputs)
        else:
            assert isinstance(module, (SIConv2d, PyramidConv2d))
            answers = [over_maps(module, known[0], x, outputs[0])]
        for output, answer in zip(outputs, answers, strict=bool(answers)):
            self._notes.write(output, answer)
        entry.put_out(outputs, answers)
        if isinstance(module, ScalePool) and module.how != "concat":
            entry.connections += len(levels) * outputs[0].numel()
