"""What the scale operators cost, as ratios to the plain convolution: ``python -m benchmarks.operators``.

Every figure is a ratio of two medians from one interleaved run on this machine. Writes
results/operators.json, docs/operators_cost.md and docs/operators_cost.png; about eight minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import interleaved
from nearfar.functional import pyramid_conv2d, scale_conv2d, si_conv2d
from nearfar.grid import Window
from nearfar.kernels import dispatch, engine_for, reference_only
from nearfar.kernels.composition import Composition
from nearfar.kernels.plan import make_plan
from nearfar.pyramid import Pyramid, expand
from nearfar.scale_sets import SCALE_SETS, as_scales

#: (batch, in, height, width, out, kernel): the first layers of small nets, and of AlexNet and ResNet.
SHAPES = [
    (64, 36, 14, 14, 64, 5),
    (64, 32, 28, 28, 64, 5),
    (8, 256, 13, 13, 384, 3),
    (16, 64, 56, 56, 64, 3),
]
SETS = ("six", "octave")
ENGINES = ("torch", "numba")
Shape = tuple[int, int, int, int, int, int]


@contextmanager
def engine(name: str) -> Iterator[None]:
    """Plain PyTorch, or the compiled kernels."""
    usual = dispatch._numba_engine
    if name == "torch":
        dispatch._numba_engine = lambda: None  # type: ignore[assignment]  # a mock would cost as much as a small layer
    try:
        yield
    finally:
        dispatch._numba_engine = usual


class Layer:
    """One layer's tensors, and the same work done in several ways."""

    def __init__(self, shape: Shape) -> None:
        batch, inputs, height, width, outputs, kernel = shape
        torch.manual_seed(0)
        x = torch.randn(batch, inputs, height, width)
        w = torch.randn(outputs, inputs, kernel, kernel) * 0.05
        g = torch.randn(batch, outputs, height, width)
        last = torch.channels_last
        self.padding = kernel // 2
        self.plainly = [t.clone().requires_grad_() for t in (x, w)]
        self.last = [t.contiguous(memory_format=last).requires_grad_() for t in (x, w)]
        self.g, self.g_last = g, g.contiguous(memory_format=last)

    def plain(self, backward: bool) -> Callable[[], object]:
        """The plain convolution in channels-last, which is 1 in every table."""
        return self._run(
            lambda x, w: F.conv2d(x, w, padding=self.padding), self.last, self.g_last, backward
        )

    def naive(self, scales: str, backward: bool) -> Callable[[], object]:
        """The composition as anybody would write it, in the usual layout."""

        def compose(x: Tensor, w: Tensor) -> Tensor:
            with reference_only():
                return si_conv2d(x, w, padding=self.padding, scales=scales)

        return self._run(compose, self.plainly, self.g, backward)

    def ours(self, scales: Any, backward: bool, name: str) -> Callable[[], object]:
        """The library's own way, with one engine."""

        def run(x: Tensor, w: Tensor) -> Tensor:
            return si_conv2d(x, w, padding=self.padding, scales=scales)

        inner = self._run(run, self.last, self.g_last, backward)

        def with_engine() -> None:
            with engine(name):
                inner()

        return with_engine

    @staticmethod
    def _run(
        f: Callable[[Tensor, Tensor], Tensor], leaves: list[Tensor], g: Tensor, backward: bool
    ) -> Callable[[], object]:
        def forward() -> None:
            with torch.no_grad():
                f(*leaves)

        return (lambda: torch.autograd.grad(f(*leaves), leaves, g)) if backward else forward


def arithmetic(shape: Shape, scales: Any, name: str = "numba") -> dict[str, float]:
    """Multiplications relative to the plain convolution: of the definition, and of what is done."""
    _, inputs, height, width, outputs, kernel = shape
    window = Window.make(kernel, 1, kernel // 2)
    with engine(name):
        rates = engine_for(torch.empty(1, 1, 1, 1))[1]
    values = as_scales(scales)
    composition = Composition(window, 1, values, tuple(range(len(values))), True, "max")
    plan = make_plan((height, width), composition, (inputs, outputs), rates)
    area = height * width
    sizes = {
        s: expand(torch.empty(1, 1, height, width), (s,)).levels[0][0, 0].numel()
        for s in as_scales(scales)
    }
    mixing = sum(level.grid[0].size * level.grid[1].size for level in plan.levels) / area + bool(
        plan.shared
    )
    combining = 0.0
    if plan.rows is not None and plan.columns is not None:
        combining = plan.rows.cost * kernel + plan.columns.cost
    return {
        "definition": sum(sizes.values()) / area,
        "ours": mixing + combining / (inputs * kernel * kernel),
    }


def table(threads: int, repeats: int, least_s: float) -> list[dict[str, Any]]:
    """Forward, and forward with backward, of every shape, scale set and engine."""
    torch.set_num_threads(threads)
    rows = []
    for shape in SHAPES:
        layer = Layer(shape)
        for scales in SETS:
            row: dict[str, Any] = {"shape": shape, "scales": scales, "threads": threads}
            row["multiplications"] = arithmetic(shape, scales)
            for backward in (False, True):
                runs = [layer.plain(backward), layer.naive(scales, backward)]
                runs += [layer.ours(scales, backward, name) for name in ENGINES]
                one, *others = interleaved(runs, repeats, least_s)
                key = "forward_backward" if backward else "forward"
                row[key] = dict(zip(("naive", *ENGINES), (t / one for t in others), strict=True))
            rows.append(row)
            print(_line(row), flush=True)
    return rows


def _line(row: dict[str, Any]) -> str:
    both = "  ".join(
        f"{name} {row['forward'][name]:5.2f} / {row['forward_backward'][name]:5.2f}"
        for name in ("naive", *ENGINES)
    )
    return f"{row['threads']} thread(s)  {row['shape']!s:26} {row['scales']:6}  {both}"


def sweep(repeats: int) -> list[dict[str, Any]]:
    """Thirty shapes, one thread: ours against the naive composition, forward and backward."""
    torch.set_num_threads(1)
    shapes: list[Shape] = [
        (batch, inputs, size, size, outputs, kernel)
        for batch, size in ((1, 56), (4, 14), (8, 28), (2, 7), (3, 33))
        for inputs, outputs, kernel in (
            (1, 16, 5),
            (3, 64, 7),
            (16, 32, 3),
            (64, 64, 3),
            (32, 48, 5),
            (128, 256, 1),
        )
    ]
    rows = []
    for shape in shapes:
        layer = Layer(shape)
        row: dict[str, Any] = {"shape": shape}
        for backward in (False, True):
            runs = [layer.naive("octave", backward)]
            runs += [layer.ours("octave", backward, name) for name in ENGINES]
            naive, *ours = interleaved(runs, repeats, 0.05)
            key = "forward_backward" if backward else "forward"
            row[key] = {n: t / naive for n, t in zip(ENGINES, ours, strict=True)}
        rows.append(row)
    for name in ENGINES:
        worst = max(max(row[k][name] for k in ("forward", "forward_backward")) for row in rows)
        print(
            f"sweep of {len(rows)} shapes, {name}: at worst {worst:.2f} of the naive time",
            flush=True,
        )
    return rows


def growth(repeats: int) -> dict[str, list[dict[str, float]]]:
    """How cost grows with the number of scales, the map's size and its channels; one thread."""
    torch.set_num_threads(1)
    figures: dict[str, list[dict[str, float]]] = {}
    ways: dict[str, list[tuple[float, Shape, Any]]] = {
        "scales": [
            (n, (16, 32, 28, 28, 64, 3), tuple(0.5 + 1.5 * i / (n - 1) for i in range(n)))
            for n in (2, 3, 4, 6, 8, 12)
        ],
        "size": [(n, (4, 32, n, n, 64, 3), "octave") for n in (7, 14, 28, 56, 112)],
        "channels": [(n, (8, n, 28, 28, n, 3), "octave") for n in (4, 8, 16, 32, 64, 128, 256)],
    }
    for key, cases in ways.items():
        figures[key] = []
        for value, shape, scales in cases:
            layer = Layer(shape)
            runs = [layer.plain(True), layer.naive(scales, True)]
            runs += [layer.ours(scales, True, name) for name in ENGINES]
            one, *others = interleaved(runs, repeats, 0.2)
            point = {"value": float(value), "definition": arithmetic(shape, scales)["definition"]}
            point |= dict(zip(("naive", *ENGINES), (t / one for t in others), strict=True))
            figures[key].append(point)
        print(f"growth with {key}: measured", flush=True)
    return figures


def others(repeats: int) -> list[dict[str, Any]]:
    """PyramidConv2d against the convolution that it replaces, ScaleConv2d against its arithmetic."""
    torch.set_num_threads(1)
    rows = []
    for batch, inputs, height, width, outputs, kernel in SHAPES:
        layer = Layer((batch, inputs, height, width, outputs, kernel))
        x = layer.last[0]
        levels = 4 if min(height, width) >= 28 else 2
        pad = kernel // 2
        scales = tuple(0.5**i for i in range(levels))
        small = torch.randn(outputs // levels, inputs, kernel, kernel, requires_grad=True)
        slab = torch.randn(outputs, inputs, 2, kernel, kernel, requires_grad=True)
        pyramid_in = expand(x.detach(), scales)
        areas = [
            level.shape[-2] * level.shape[-1] / (height * width) for level in pyramid_in.levels
        ]
        count = sum(2 * a for a in areas[:-1]) + areas[-1]

        def pyramid(x: Tensor, w: Tensor, pad: int = pad, scales: Any = scales) -> Tensor:
            return pyramid_conv2d(x, w, padding=pad, scales=scales)

        levels_in = [t.contiguous(memory_format=torch.channels_last) for t in pyramid_in.levels]
        leaves = [slab, *(t.detach().requires_grad_() for t in levels_in)]
        gradients = [torch.randn(batch, outputs, *t.shape[-2:]) for t in levels_in]
        gradients = [t.contiguous(memory_format=torch.channels_last) for t in gradients]

        def slide(
            backward: bool,
            pyramid_in: Pyramid = pyramid_in,
            leaves: Any = leaves,
            g: Any = gradients,
            pad: int = pad,
        ) -> Callable[[], object]:
            def forward() -> Pyramid:
                return scale_conv2d(
                    replace(pyramid_in, levels=tuple(leaves[1:])), leaves[0], padding=pad
                )

            def alone() -> None:
                with torch.no_grad():
                    forward()

            return (lambda: torch.autograd.grad(forward().levels, leaves, g)) if backward else alone

        row: dict[str, Any] = {
            "shape": (batch, inputs, height, width, outputs, kernel),
            "levels": levels,
        }
        for backward in (False, True):
            runs = [
                layer.plain(backward),
                Layer._run(pyramid, [x, small], layer.g_last, backward),
                slide(backward),
            ]
            one, first, second = interleaved(runs, repeats, 0.5)
            key = "forward_backward" if backward else "forward"
            row[key] = {"pyramid": first / one, "scale_to_its_count": second / one / count}
        rows.append(row)
        print(
            f"{row['shape']!s:26} {levels} levels  pyramid "
            f"{row['forward']['pyramid']:.2f} / {row['forward_backward']['pyramid']:.2f}  "
            f"scale, to its {count:.2f} multiplications, {row['forward']['scale_to_its_count']:.2f} / "
            f"{row['forward_backward']['scale_to_its_count']:.2f}",
            flush=True,
        )
    return rows


def memory() -> list[dict[str, Any]]:
    """Peak memory of one forward and backward pass, the layer's own input and gradient included.

    Each in a process of its own.
    """
    rows = []
    for shape in (SHAPES[1], SHAPES[3]):
        for scales in SETS:
            figures = {
                name: _memory_of(name, shape, scales) for name in ("plain", "naive", *ENGINES)
            }
            rows.append({"shape": shape, "scales": scales, "mib": figures})
            print(f"extra peak MiB {shape!s:26} {scales:6}  {figures}", flush=True)
    return rows


def _memory_of(name: str, shape: Shape, scales: str) -> float:
    done = subprocess.run(  # noqa: S603
        [
            sys.executable,
            "-m",
            "benchmarks.operators",
            "--memory-of",
            name,
            json.dumps(shape),
            scales,
        ],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return float(done.stdout)


def _report_memory(name: str, shape: Shape, scales: str) -> None:
    torch.set_num_threads(1)
    batch, inputs, height, width, outputs, _ = shape

    def work(shape: Shape) -> Callable[[], object]:
        layer = Layer(shape)
        if name == "plain":
            return layer.plain(True)
        return layer.naive(scales, True) if name == "naive" else layer.ours(scales, True, name)

    work((2, *shape[1:]))()  # compiles, and makes what is kept between calls
    run = work(shape)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    run()
    layer_itself = (
        (batch * inputs + batch * outputs) * height * width * 4
    )  # input, output's gradient
    print(round((_status("VmHWM") - before) / 1024 + layer_itself / 2**20, 1))


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> None:
    """Measures everything and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7, help="runs of each thing, at least")
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="for each row of the table, at least"
    )
    parser.add_argument("--out", type=Path, default=Path("results"), help="where the figures go")
    parser.add_argument("--memory-of", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        name, shape, scales = arguments.memory_of
        _report_memory(name, tuple(json.loads(shape)), scales)
        return
    counts = [1, 2] if (os.cpu_count() or 1) > 1 else [1]
    figures = {
        "command": "python -m benchmarks.operators",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}",
        "date": date.today().isoformat(),
        "scale_sets": {name: SCALE_SETS[name] for name in SETS},
        "table": [row for n in counts for row in table(n, arguments.repeats, arguments.seconds)],
        "memory": memory(),
        "others": others(arguments.repeats),
        "sweep": sweep(arguments.repeats),
        "growth": growth(arguments.repeats),
    }
    arguments.out.mkdir(exist_ok=True)
    (arguments.out / "operators.json").write_text(json.dumps(figures, indent=1) + "\n")
    from benchmarks.operators_report import write

    write(figures, Path("docs/operators_cost.md"), Path("docs/operators_cost.png"))
    print("next: read docs/operators_cost.md")


if __name__ == "__main__":
    main()
