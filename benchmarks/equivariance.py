"""What discretisation costs: does an operator's answer follow when the image is rescaled?

``python -m benchmarks.equivariance`` measures, for every operator Φ and scale s,

    |Φ(T_s x) − T_s Φ(x)| / |T_s Φ(x)|

over patches of photographs and random filters, away from the borders, with and without antialiasing in
the operator. Writes results/equivariance.json and docs/operators_equivariance.png; about four minutes.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn import functional as F

from nearfar.functional import pyramid_conv2d, scale_conv2d, si_conv2d
from nearfar.layers import relative_errors
from nearfar.pyramid import collapse, expand

SCALES = [0.5, 0.6, 0.7071, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4142, 1.65, 2.0]
DENSE = tuple(2 ** (i / 4) for i in range(-8, 9))
SEED = 0


def patches(count: int, size: int) -> Tensor:
    """Grey patches of scikit-learn's two photographs, ``[count, 1, size, size]``, mean zero."""
    rng = np.random.default_rng(SEED)
    figures = []
    for i in range(count):
        image = load_sample_images().images[i % 2].mean(axis=2) / 255
        top, left = (int(rng.integers(0, n - size)) for n in image.shape)
        figures.append(image[top : top + size, left : left + size])
    x = torch.tensor(np.stack(figures), dtype=torch.float32)[:, None]
    return x - x.mean(dim=(2, 3), keepdim=True)


def filters(kind: str) -> Tensor:
    """16 random 5×5 filters of mean zero, ``[16, 1, 5, 5]``."""
    torch.manual_seed(SEED)
    if kind == "random":
        w = torch.randn(16, 1, 5, 5)
    else:  # random mixtures of the first and second derivatives of a Gaussian, sigma 1
        y, x = torch.meshgrid(torch.arange(-2.0, 3), torch.arange(-2.0, 3), indexing="ij")
        parts = torch.stack([x, y, x * y, x * x - 1, y * y - 1]) * torch.exp(-(x * x + y * y) / 2)
        w = torch.einsum("oi,iyx->oyx", torch.randn(16, 5), parts)[:, None]
    return w - w.mean(dim=(2, 3), keepdim=True)


def operators(w: Tensor, antialias: bool) -> dict[str, Callable[[Tensor], Tensor]]:
    """Each operator with the same filters."""
    slab = torch.stack([w, -0.5 * w.flip(0)], dim=2)

    def sliding(x: Tensor) -> Tensor:
        levels = expand(x, tuple(reversed(DENSE)), antialias=antialias)
        return collapse(scale_conv2d(levels, slab, padding=2, antialias=antialias), "max")

    return {
        "Conv2d": lambda x: F.conv2d(x, w, padding=2),
        "PyramidConv2d, 4 levels": lambda x: pyramid_conv2d(x, w, padding=2, antialias=antialias),
        "SIConv2d, octave": lambda x: si_conv2d(x, w, padding=2, antialias=antialias),
        "SIConv2d, 17 scales ¼–4": lambda x: si_conv2d(
            x, w, padding=2, scales=DENSE, antialias=antialias
        ),
        "ScaleConv2d, 17 scales": sliding,
    }


def error(operator: Callable[[Tensor], Tensor], x: Tensor, s: float) -> float:
    """The relative error at one scale, median over patches, an eighth of each side left out."""
    moved = operator(expand(x, (s,)).levels[0])
    expected = expand(operator(x), (s,)).levels[0]
    return float(relative_errors(moved, expected).median())


def main() -> None:
    """Measures, writes, draws."""
    x = patches(12, 96)
    figures: dict[str, Any] = {
        "command": "python -m benchmarks.equivariance",
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "date": date.today().isoformat(),
        "seed": SEED,
        "scales": SCALES,
        "errors": {},
    }
    for kind in ("smooth", "random"):
        for antialias in (True, False):
            key = f"{kind} filters, {'' if antialias else 'no '}antialiasing"
            figures["errors"][key] = {}
            for name, operator in operators(filters(kind), antialias).items():
                with torch.no_grad():
                    values = [round(error(operator, x, s), 4) for s in SCALES]
                figures["errors"][key][name] = values
                print(f"{key:33} {name:24} " + " ".join(f"{v:.2f}" for v in values), flush=True)
    Path("results/equivariance.json").write_text(json.dumps(figures, indent=1) + "\n")
    draw(figures, Path("docs/operators_equivariance.png"))
    print("next: look at docs/operators_equivariance.png")


def draw(figures: dict[str, Any], path: Path) -> None:
    """Error against scale, a panel for each kind of filter with and without antialiasing."""
    figure, axes = plt.subplots(
        2, 2, figsize=(10.5, 7.2), sharey=True, sharex=True, layout="constrained"
    )
    colours = ["#777777", "#9b59b6", "#3b6fb5", "#1d8a5b", "#c98a1b"]
    for ax, (key, errors) in zip(axes.flat, figures["errors"].items(), strict=True):
        for (name, values), colour in zip(errors.items(), colours, strict=True):
            ax.plot(figures["scales"], values, "o-", color=colour, label=name, markersize=4)
        ax.set_title(key, fontsize=11)
        ax.set_xscale("log", base=2)
        ax.set_xticks([0.5, 0.7071, 1, 1.4142, 2], ["0.5", "0.71", "1", "1.41", "2"])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0, 0].set_ylim(bottom=0)  # one axis for all four
    for ax in axes[1]:
        ax.set_xlabel("scale of the image")
    for ax in axes[:, 0]:
        ax.set_ylabel("relative error of the answer\n(0 = follows the image)")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    main()
