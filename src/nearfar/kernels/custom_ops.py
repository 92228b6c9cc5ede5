"""The operators as PyTorch operators of their own, which ``torch.compile`` calls instead of following them.

A compiled network would otherwise hold every scale's resizing and convolution as loops of its own, which take
the compiler half a minute a layer and run slower than the fast paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from nearfar.grid import Window
from nearfar.kernels.composition import Composition
from nearfar.kernels.dispatch import compute, fast_path
from nearfar.kernels.levels import is_channels_last
from nearfar.kernels.pyramid_concat import pyramid_concat_gradients
from nearfar.kernels.si_max import si_max_gradients
from nearfar.reference import is_finite

__all__ = ["apply", "is_applicable"]

_FORWARD = "nearfar::scale_convolution"
_BACKWARD = "nearfar::scale_convolution_backward"


def is_applicable(composition: Composition, x: Tensor) -> bool:
    """Whether a network is being compiled, and by operators that PyTorch may call.

    While a network is exported it is followed into plain operators, so that its file runs without nearfar.
    """
    return (
        torch.compiler.is_compiling()
        and not torch.compiler.is_exporting()
        and composition.how in ("max", "concat")
        and composition.padding_mode == "zeros"
        and len(composition.scales) > 1
        and x.dim() == 4
    )


def apply(
    composition: Composition, x: Tensor, weight: Tensor, bias: Tensor | None, return_winner: bool
) -> tuple[Tensor, Tensor]:
    """The output and, with ``return_winner`` or where gradients are needed, the winners (else no element)."""
    tensors = [t for t in (x, weight, bias) if t is not None]
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    winner = composition.how == "max" and (return_winner or learns)
    out, winners = _forward(x, weight, bias, *_constants(composition), winner)
    return out, winners


def _constants(composition: Composition) -> tuple[Any, ...]:
    """A composition as arguments of an operator; the kernel's size is the weight's."""
    window = composition.window
    geometry = [*window.stride, *(n for pair in window.padding for n in pair), *window.dilation]
    return (
        geometry,
        composition.groups,
        list(composition.scales),
        list(composition.numbers),
        composition.antialias,
        composition.how,
    )


def _composition(
    weight: Tensor,
    geometry: Sequence[int],
    groups: int,
    scales: Sequence[float],
    numbers: Sequence[int],
    antialias: bool,
    how: str,
) -> Composition:
    """The inverse of :func:`_constants`."""
    down, right, top, bottom, left, right_end, rows, columns = geometry
    window = Window(
        (int(weight.shape[2]), int(weight.shape[3])),
        (down, right),
        ((top, bottom), (left, right_end)),
        (rows, columns),
    )
    return Composition(window, groups, tuple(scales), tuple(numbers), antialias, how)  # type: ignore[arg-type]


@torch.library.custom_op(_FORWARD, mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Sequence[int],
    groups: int,
    scales: Sequence[float],
    numbers: Sequence[int],
    antialias: bool,
    how: str,
    return_winner: bool,
) -> tuple[Tensor, Tensor]:
    composition = _composition(weight, geometry, groups, scales, numbers, antialias, how)
    with torch.no_grad():
        out, winner = compute(
            composition, x.detach(), weight.detach(), _detached(bias), return_winner
        )
    layout = _layout(x, weight)
    if winner is None:
        return out.contiguous(memory_format=layout), x.new_empty(0, dtype=torch.uint8)
    return out.contiguous(memory_format=layout), winner.contiguous(memory_format=layout)


def _empty_output(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    geometry: Sequence[int],
    groups: int,
    scales: Sequence[float],
    numbers: Sequence[int],
    antialias: bool,
    how: str,
    return_winner: bool,
) -> tuple[Tensor, Tensor]:
    window = _composition(weight, geometry, groups, scales, numbers, antialias, how).window
    channels = weight.shape[0] * (len(scales) if how == "concat" else 1)
    sizes = (window.output_size(x.shape[2], 0), window.output_size(x.shape[3], 1))
    out = x.new_empty((x.shape[0], channels, *sizes))
    out = out.contiguous(memory_format=_layout(x, weight))
    winner = torch.empty_like(out, dtype=torch.uint8) if return_winner else x.new_empty(0)
    return out, winner.to(torch.uint8)


@torch.library.custom_op(_BACKWARD, mutates_args=())
def _backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    winner: Tensor,
    geometry: Sequence[int],
    groups: int,
    scales: Sequence[float],
    numbers: Sequence[int],
    antialias: bool,
    how: str,
    needed: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    composition = _composition(weight, geometry, groups, scales, numbers, antialias, how)
    gradients = _fast_gradients(composition, g, x, weight, bias, winner, tuple(needed))
    if gradients is None:
        gradients = _with_autograd(composition, g, x, weight, bias, needed)
    shapes = (x, weight, g.new_empty(0) if bias is None else bias)
    return tuple(  # type: ignore[return-value]
        like.new_empty(0)
        if gradient is None
        else gradient.clone(memory_format=torch.contiguous_format)
        for gradient, like in zip(gradients, shapes, strict=True)
    )


def _empty_gradients(
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    winner: Tensor,
    geometry: Sequence[int],
    groups: int,
    scales: Sequence[float],
    numbers: Sequence[int],
    antialias: bool,
    how: str,
    needed: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    return tuple(  # type: ignore[return-value]
        g.new_empty(t.shape if need and t is not None else 0)
        for t, need in zip((x, weight, bias), needed, strict=True)
    )


def _fast_gradients(
    composition: Composition,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    winner: Tensor,
    needed: tuple[bool, ...],
) -> tuple[Tensor | None, ...] | None:
    """The fast path's gradients; ``None`` where there is none, or where something is not finite."""
    with torch.no_grad():
        fast = fast_path(x.detach(), weight.detach(), _detached(bias), composition)
        if fast is None:
            return None
        layout = torch.channels_last
        x, weight = x.detach().contiguous(memory_format=layout), weight.detach().contiguous()
        if composition.how == "concat":
            gradients = pyramid_concat_gradients(x, weight, *fast, g, needed)
        else:
            gradients = si_max_gradients(x, weight, winner, *fast, g, needed)
        return gradients if is_finite(gradients[1] if needed[1] else gradients[0]) else None


def _with_autograd(
    composition: Composition,
    g: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    needed: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The composition's gradients. Within an operator autograd is off; a thread of its own has it."""
    stream = torch.cuda.current_stream(x.device) if x.device.type == "cuda" else None

    def gradients() -> tuple[Tensor | None, ...]:
        with torch.cuda.stream(stream), torch.no_grad():
            return composition.gradients(
                x.detach(), weight.detach(), _detached(bias), g.detach(), needed
            )

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(gradients).result()


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x, weight, bias, *constants, _ = inputs
    ctx.constants = constants
    ctx.save_for_backward(x, weight, bias, output[1])


def _differentiate(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:3])
    gradients = _backward(g, *ctx.saved_tensors, *ctx.constants, needed)
    wanted_gradients = (
        gradient if need else None for gradient, need in zip(gradients, needed, strict=True)
    )
    return (*wanted_gradients, *(None for _ in range(len(ctx.constants) + 1)))


torch.library.register_fake(_FORWARD, _empty_output)
torch.library.register_fake(_BACKWARD, _empty_gradients)
torch.library.register_autograd(_FORWARD, _differentiate, setup_context=_save)


def _layout(x: Tensor, weight: Tensor) -> torch.memory_format:
    return torch.channels_last if is_channels_last(x, weight) else torch.contiguous_format


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
