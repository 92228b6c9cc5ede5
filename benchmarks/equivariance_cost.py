"""Every layer's equivariance error against what it costs.

``python -m benchmarks.equivariance_cost`` asks each layer how nearly it keeps its contract
(``layer.check_equivariance``), counts its multiplications, and times it and its backward pass in turns with
the plain convolution of the same channels. Writes results/equivariance_cost.json; under two minutes.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved
from nearfar import layers, pyramid
from nearfar.counting import count
from nearfar.layers import ScaleLayer

SCALES = (0.5, 0.63, 0.7937, 1.26, 1.5874, 2.0)
SEED = 0
CHANNELS, SIDE, BATCH, REPEATS = 16, 28, 16, 9
_PAIR = (CHANNELS, CHANNELS, 5)

#: A layer, and how a map becomes its input.
LAYERS: dict[str, Callable[[], ScaleLayer]] = {
    "SIConv2d": lambda: layers.SIConv2d(*_PAIR, padding=2),
    "PyramidConv2d": lambda: layers.PyramidConv2d(*_PAIR, padding=2),
    "ScaleConv2d": lambda: layers.ScaleConv2d(*_PAIR, padding=2),
    "SteerableConv2d": lambda: layers.SteerableConv2d(*_PAIR, padding=2),
    "DiscoConv2d": lambda: layers.DiscoConv2d(*_PAIR, padding=2),
    "DilatedScaleConv2d": lambda: layers.DilatedScaleConv2d(*_PAIR, padding=2),
    "GaussianDerivativeConv2d": lambda: layers.GaussianDerivativeConv2d(*_PAIR, padding=2),
    "SiCNNConv2d, 1 and 2": lambda: layers.SiCNNConv2d(*_PAIR, padding=2, filter_scales=(1, 2)),
    "RieszConv2d": lambda: layers.RieszConv2d(CHANNELS, CHANNELS),
}


class Over(nn.Module):
    """A layer on a map, which becomes a pyramid where the layer reads one."""

    def __init__(self, layer: ScaleLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        source = x
        if isinstance(self.layer, layers.ScaleConv2d):
            source = pyramid.expand(x, (1, 0.7071, 0.5, 0.3536))  # type: ignore[assignment]
        y = self.layer(source)  # type: ignore[operator]
        return y if isinstance(y, Tensor) else pyramid.collapse(y, "max")


def main() -> None:
    """Measures, writes, prints the docs' table."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE)
    plain = nn.Conv2d(*_PAIR, padding=2)
    once = count(plain, (CHANNELS, SIDE, SIDE)).multiplications

    def step(net: nn.Module) -> Callable[[], object]:
        return lambda: net(x).square().sum().backward()

    nets = {name: Over(make()) for name, make in LAYERS.items()}  # type: ignore[arg-type]
    plain_s, *seconds = interleaved([step(plain), *map(step, nets.values())], REPEATS)
    rows = []
    print("| layer | error at ½ and 2 | worst of thirds of an octave | multiplications | time |")
    for (name, net), taken_s in zip(nets.items(), seconds, strict=True):
        result = net.layer.check_equivariance(SCALES)
        ends = [result.errors[0], result.errors[-1]]
        thirds = [e for e in result.errors[1:-1] if e is not None]
        row = {
            "layer": name,
            "contract": result.contract,
            "errors": dict(zip(map(str, SCALES), result.errors, strict=True)),
            "multiplications_ratio": count(net, (CHANNELS, SIDE, SIDE)).multiplications / once,
            "time_ratio": taken_s / plain_s,
        }
        rows.append(row)
        largest = max((e for e in ends if e is not None), default=None)
        cells = [
            name,
            "–" if largest is None else f"{largest:.3f}",
            f"{max(thirds):.3f}" if thirds else "–",
            f"{row['multiplications_ratio']:.1f}",
            f"{row['time_ratio']:.1f}",
        ]
        print("| " + " | ".join(cells) + " |", flush=True)
    figures = {
        "command": "python -m benchmarks.equivariance_cost",
        "machine": f"{platform.machine()}, torch {torch.__version__}, 1 thread, others at work beside",
        "date": date.today().isoformat(),
        "seed": SEED,
        "setting": f"{CHANNELS} to {CHANNELS} channels, 5×5, {BATCH} maps of {SIDE}×{SIDE}, forward and "
        f"backward, medians of {REPEATS} in turns; plain convolution {plain_s * 1e3:.2f} ms",
        "layers": rows,
    }
    text = json.dumps(figures, indent=1, ensure_ascii=False)
    Path("results/equivariance_cost.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
