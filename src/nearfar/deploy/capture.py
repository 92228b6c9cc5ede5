"""A network as a program of ``torch.export``, its sizes left open as far as it bears it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.value_ranges import ValueRanges

from nearfar.classifiers import InputSpec
from nearfar.deploy.time_limit import time_limit

__all__ = ["Openness", "captured", "quietly", "ways"]


#: Seconds that a network may be followed with open sizes; a ResNet-152 takes ten.
_PATIENCE_S = 180.0


@dataclass(frozen=True)
class Openness:
    """Which sizes of the input a program leaves open.

    Attributes:
        batch: any number of images, or 1.
        image: any height and width, or those of the canvas.
    """

    batch: bool = True
    image: bool = True

    def __str__(self) -> str:
        batch = "any number of images" if self.batch else "one image"
        return f"{batch} of {'any size' if self.image else 'one size'}"


def ways(input_spec: InputSpec) -> tuple[Openness, ...]:
    """In which ways to try, the most open first."""
    openness = (Openness(), Openness(image=False), Openness(batch=False, image=False))
    return openness if input_spec.any_size else openness[1:]


def captured(module: nn.Module, input_spec: InputSpec, openness: Openness) -> ExportedProgram:
    """Follows a network and writes down what it does.

    Args:
        module: in eval mode, float32, on the CPU.
        input_spec: says how large its images are.
        openness: which sizes to leave open.

    Raises:
        Exception: whatever the network makes torch.export trip over.
    """
    height, width = input_spec.protocol.canvas_size
    # Nothing is computed, so large images cost nothing; and no level of a pyramid, however deep in
    # the network, becomes a map of one pixel, for which torch would write a program of its own.
    if openness.image:
        height, width = 5 * height, 6 * width
    images = torch.rand(2 if openness.batch else 1, input_spec.in_chans, height, width)
    open_sizes = {
        **({0: Dim.DYNAMIC} if openness.batch else {}),
        **({2: Dim.DYNAMIC, 3: Dim.DYNAMIC} if openness.image else {}),
    }
    # Some networks' open sizes sympy simplifies for hours.
    limit = time_limit(_PATIENCE_S, "following it") if openness.image else contextlib.nullcontext()
    with quietly(), torch.no_grad(), _one_is_a_size(), limit:
        program = torch.export.export(
            _Input(module), (images,), dynamic_shapes=(open_sizes or None,), strict=False
        )
    return _admitting_one(program)


class _Input(nn.Module):
    """Gives the input one name, whatever the network calls it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> Any:
        return self.network(images)


def _one_is_a_size() -> contextlib.AbstractContextManager[None]:
    """An open size may turn out to be 1; torch's ONNX exporter sets the same switch."""
    config: Any = torch.fx.experimental._config
    if not hasattr(config, "backed_size_oblivious"):
        return contextlib.nullcontext()
    patched: contextlib.AbstractContextManager[None] = config.patch(backed_size_oblivious=True)
    return patched


def _admitting_one(program: ExportedProgram) -> ExportedProgram:
    """Takes back that open sizes, and those of maps inside, be other than 1.

    torch notes that where it decides on the order of numbers in memory, not on values; a batch of one
    image would be refused for it. Other conditions stay. What the program gives is compared with the
    network afterwards, batches of one among it.
    """
    conditions = getattr(program, "_guards_code", [])
    conditions[:] = [text for text in conditions if not re.search(r"(?:!=|>) 1$|^1 <", text)]
    ranges = program.range_constraints
    for symbol, bounds in list(ranges.items()):
        ranges[symbol] = ValueRanges(1, bounds.upper)
    return program


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without the exporters' own remarks: of what goes wrong they print pages, and raise it as well."""
    before = logging.root.manager.disable
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)
