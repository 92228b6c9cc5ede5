"""The operators' figures as a table to read and a picture to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

GOALS = {
    ("torch", "six"): (12.0, 11.0),
    ("torch", "octave"): (7.5, 7.0),
    ("numba", "six"): (9.0, 10.5),
    ("numba", "octave"): (5.5, 6.5),
}
NAMES = {
    "naive": "naive composition",
    "torch": "nearfar, plain PyTorch",
    "numba": "nearfar with numba",
}
COLOURS = {"naive": "#b5493b", "torch": "#3b6fb5", "numba": "#1d8a5b", "definition": "#777777"}


def write(figures: dict[str, Any], table: Path, picture: Path) -> None:
    """Both, from what ``benchmarks.operators`` has measured."""
    table.write_text("\n".join(_table(figures)) + "\n")
    _picture(figures, picture)


def _pair(row: dict[str, Any], name: str) -> str:
    return f"{row['forward'][name]:.1f} / {row['forward_backward'][name]:.1f}"


def _shape(shape: list[int]) -> str:
    batch, inputs, height, width, outputs, kernel = shape
    return f"{batch} × {inputs} → {outputs}, {height}×{width}, k {kernel}"


def _table(figures: dict[str, Any]) -> list[str]:
    lines = [
        "# What the scale operators cost",
        "",
        "Written by `python -m benchmarks.operators`; the same figures are in `results/operators.json`.",
        "",
        f"`{figures['command']}`, {figures['date']}, {figures['machine']}. Ratios to the plain channels-last "
        "convolution, float32, forward / forward + backward, medians of interleaved runs.",
        "",
        "## SIConv2d",
        "",
        "*By definition* counts the multiplications of convolving every level; *done* those of our way, "
        "combining included. In brackets, the goal that was set. *Naive* is expand, convolve, collapse in "
        "the usual layout.",
        "",
        "![time against number of scales, size and channels](operators_cost.png)",
        "",
        "| layer | scales | threads | by definition | done | naive | plain PyTorch | with numba |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in figures["table"]:
        cells = [
            f"{_pair(row, name)} ({GOALS[name, row['scales']][0]:g} / {GOALS[name, row['scales']][1]:g})"
            for name in ("torch", "numba")
        ]
        count = row["multiplications"]
        lines.append(
            f"| {_shape(row['shape'])} | {row['scales']} | {row['threads']} | {count['definition']:.1f} | "
            f"{count['ours']:.1f} | {_pair(row, 'naive')} | {cells[0]} | {cells[1]} |"
        )
    lines += [
        "",
        "## Peak memory of one forward and backward pass, input and gradient included, MiB (goal: 1.6×)",
        "",
        "| layer | scales | plain | naive | plain PyTorch | with numba |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in figures["memory"]:
        mib = row["mib"]
        ours = [f"{mib[n]:.0f} ({mib[n] / mib['plain']:.2f}×)" for n in ("torch", "numba")]
        lines.append(
            f"| {_shape(row['shape'])} | {row['scales']} | {mib['plain']:.0f} | {mib['naive']:.0f} | "
            f"{ours[0]} | {ours[1]} |"
        )
    lines += _other_layers(figures["others"])
    lines += [
        "",
        f"## Never slower than the naive composition? {len(figures['sweep'])} shapes, octave set",
        "",
        "| engine | worst, forward | worst, forward + backward | median, forward + backward |",
        "| --- | --- | --- | --- |",
    ]
    for name in ("torch", "numba"):
        forward = sorted(row["forward"][name] for row in figures["sweep"])
        both = sorted(row["forward_backward"][name] for row in figures["sweep"])
        lines.append(
            f"| {NAMES[name]} | {forward[-1]:.2f} | {both[-1]:.2f} | {both[len(both) // 2]:.2f} |"
        )
    return lines


def _other_layers(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "",
        "## PyramidConv2d to the plain convolution with as many outputs; ScaleConv2d to its own count",
        "",
        "| layer | levels | PyramidConv2d (1.0) | ScaleConv2d (1.4) |",
        "| --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [
            f"{row['forward'][n]:.2f} / {row['forward_backward'][n]:.2f}"
            for n in ("pyramid", "scale_to_its_count")
        ]
        lines.append(f"| {_shape(row['shape'])} | {row['levels']} | {cells[0]} | {cells[1]} |")
    return lines


def _picture(figures: dict[str, Any], path: Path) -> None:
    titles = {
        "scales": ("number of scales from ½ to 2", "32 → 64 channels, 28×28, k 3"),
        "size": ("height and width of the map, pixels", "32 → 64 channels, k 3, octave set"),
        "channels": ("channels in and out", "28×28, k 3, octave set"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), sharey=True, layout="constrained")
    for ax, (key, (label, title)) in zip(axes, titles.items(), strict=True):
        points = figures["growth"][key]
        x = [point["value"] for point in points]
        for name in ("naive", "torch", "numba"):
            y = [point[name] for point in points]
            ax.plot(x, y, "o-", color=COLOURS[name], label=NAMES[name], linewidth=2, markersize=4)
        count = [point["definition"] for point in points]
        ax.plot(x, count, "--", color=COLOURS["definition"], label="multiplications by definition")
        ax.set_title(title, fontsize=10)
        ax.set_xlabel(label)
        ax.set_xscale("log", base=2)
        ax.set_xticks(x, [f"{v:g}" for v in x])
        ax.minorticks_off()
        ax.set_yscale("log", base=2)
        ax.set_yticks([1, 2, 4, 8, 16, 32], ["1", "2", "4", "8", "16", "32"])
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("time, plain convolution = 1\n(forward + backward, 1 thread)")
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
