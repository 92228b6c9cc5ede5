from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from auditing.audits import SCALES, exact, full
from matplotlib.figure import Figure

from nearfar.auditing.plots import (
    COLOURS,
    plot_confidence,
    plot_curves,
    plot_equivariance,
    plot_flips,
    plot_invariance,
)
from nearfar.auditing.plots.axes import dash_of, new_axes, scale_axis, shortened
from nearfar.auditing.plots.layers import SHOWN_LAYERS
from nearfar.auditing.report import figure_bytes
from nearfar.auditing.result import Flips, LayerScores
from nearfar.errors import InputError

NAMES = ("_hidden", "$\\frac{1$", "象 and <b>", "a\nb" * 40)


def axis(figure):
    return figure.axes[0]


def legend(figure):
    return [text.get_text() for text in axis(figure).get_legend().get_texts()]


def drawn(figure):
    """The figure as SVG."""
    return figure_bytes(figure, "svg").decode()


@pytest.fixture(scope="module")
def result():
    return full({"net": 1.0}, images=60).results["net"]


def test_all_draw_on_a_given_axis(result):
    ways = {
        plot_curves: {"net": result.curve},
        plot_confidence: result.curve,
        plot_flips: {"net": result.flips},
        plot_invariance: result.layers,
        plot_equivariance: result.layers,
    }
    for plot, given in ways.items():
        figure = Figure()
        ax = figure.add_subplot(1, 2, 2)
        assert plot(given, ax=ax) is figure
        assert ax.lines or ax.patches, plot
        assert drawn(plot(given)) == drawn(plot(given))


def test_refusals():
    with pytest.raises(InputError, match="at least one curve"):
        plot_curves({})
    with pytest.raises(InputError, match="holds no confidence"):
        plot_confidence(exact({1.0: 0.5}))
    with pytest.raises(InputError, match="flips of at least one model"):
        plot_flips({})


def test_curves_stand_at_their_figures_with_their_bands():
    curve = exact({2.0: 0.78, 0.5: 0.2, 1.0: 0.8})
    ax = axis(plot_curves({"net": curve}, max_loss=0.05, mark=""))
    line, bar = ax.lines[0], ax.lines[-1]
    assert list(line.get_xdata()) == [0.5, 1.0, 2.0]
    assert list(line.get_ydata()) == pytest.approx([20, 80, 78])
    assert list(bar.get_xdata()) == [1.0, 2.0]
    assert max(bar.get_ydata()) < 0
    band = ax.collections[0].get_paths()[0].vertices
    for scale in (0.5, 1.0, 2.0):
        ends = band[band[:, 0] == scale][:, 1]
        assert (ends.min(), ends.max()) == pytest.approx(
            tuple(100 * end for end in curve.interval(scale))
        )
    assert ax.get_ylim()[0] < min(bar.get_ydata())
    assert not [text for text in ax.texts if "trained" in text.get_text()]
    assert axis(plot_curves({"net": curve})).texts[0].get_text() == "trained here"


@pytest.mark.filterwarnings("ignore:Glyph")  # measured here outside of figure_bytes
def test_names_of_any_kind_and_number_stand_in_the_legend():
    curves = {f"{name}{i}": exact({0.5: 0.4, 1.0: 0.8}) for i in range(3) for name in NAMES}
    figure = plot_curves(curves, max_loss=0.1, ax=new_axes(4.4, 6))
    svg = drawn(figure)
    assert len(legend(figure)) == 12
    assert legend(figure)[0].endswith("_hidden0")
    assert "\\frac{1$" in svg
    assert "象 and &lt;b&gt;" in svg
    styles = {(line.get_color(), line.get_linestyle()) for line in axis(figure).lines[:12]}
    assert len(styles) == 12
    assert dash_of(len(COLOURS) - 1) != dash_of(len(COLOURS))
    # Drawn within the figure, above the axis.
    box = axis(figure).get_legend().get_window_extent()
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= axis(figure).get_window_extent().y1


def test_short_names_share_a_line():
    def lines(names):
        figure = plot_curves({name: exact({0.5: 0.4, 1.0: 0.8}) for name in names})
        drawn(figure)
        tops = {round(t.get_window_extent().y0) for t in axis(figure).get_legend().get_texts()}
        return len(tops)

    assert lines(["a", "b", "c"]) == 1
    assert lines(["plain", "si", "pyramid", "wsms", "hierarchical"]) == 1
    assert lines(["a" * 40, "b" * 40, "c" * 40]) == 3


@pytest.mark.parametrize("width", [3.0, 4.4, 9.0])
def test_labels_of_scales_do_not_overlap(width):
    figure = plot_curves(
        {"net": exact(dict.fromkeys((*SCALES, 1.05, 3.0), 0.5))}, ax=new_axes(width, 4)
    )
    drawn(figure)
    boxes = [
        label.get_window_extent() for label in axis(figure).get_xticklabels() if label.get_text()
    ]
    assert len(boxes) >= 4
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    assert "1×" in [label.get_text() for label in axis(figure).get_xticklabels()]


def test_one_scale_has_an_axis_too():
    ax = new_axes(4, 3)
    scale_axis(ax, [1.0])
    low, high = ax.get_xlim()
    assert low < 1 < high


def test_confidence_stands_beside_accuracy():
    ax = axis(plot_confidence(exact({0.5: 0.2, 1.0: 0.8}, confidence=0.7)))
    assert list(ax.lines[0].get_ydata()) == pytest.approx([70, 70])
    assert list(ax.lines[1].get_ydata()) == pytest.approx([20, 80])


def test_flips_fall_by_each_image_to_both_sides():
    nan = math.nan
    flips = Flips(
        torch.arange(4),
        torch.tensor([0.8, nan, 0.5, nan], dtype=torch.float64),
        torch.tensor([nan, nan, 3.0, nan], dtype=torch.float64),
        0.25,
        4.0,
        1.02,
    )
    figure = plot_flips({"net": flips}, indices={"net": 2})
    line = axis(figure).lines[0]
    points = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert points == [
        (0.25, 50), (0.5, 50), (0.5, 75), (0.8, 75), (0.8, 100), (1, 100),
        (1, 100), (3.0, 100), (3.0, 75), (4.0, 75),
    ]  # fmt: skip
    assert line.get_color() == COLOURS[2]
    assert axis(figure).get_xticks()[0] == 0.25
    # Searched in one direction, or in none.
    none = torch.full((4,), nan, dtype=torch.float64)
    drawn(plot_flips({"net": Flips(torch.arange(4), none, none, 1.0, 4.0, 1.02)}))
    drawn(plot_flips({"net": Flips(torch.arange(4), none, none, 1.0, 1.0, 1.02)}))


def test_layers_run_from_top_to_bottom():
    layers = LayerScores(
        ("conv1", "x" * 60 + ".conv2", "$\\frac$"),
        (3.0, math.nan, 5.5),
        (0.5, 2.0),
        ((0.1, 0.2), (math.nan, math.nan), (0.3, 0.4)),
    )
    figure = plot_invariance(layers)
    ax = axis(figure)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[0] == "conv1"
    assert re.fullmatch(r"…x{21}\.conv2", names[1])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first on top
    assert [text.get_text() for text in ax.texts] == ["3.0", "none", "5.5"]
    assert "\\frac" in drawn(figure)
    figure = plot_equivariance(layers)
    assert legend(figure) == ["at 0.5×", "at 2×"]
    assert list(axis(figure).lines[1].get_xdata())[::2] == [0.2, 0.4]
    many = full({"net": 1.0}, images=20, layers=60).results["net"].layers
    names = [label.get_text() for label in axis(plot_invariance(many)).get_yticklabels()]
    assert len(names) == SHOWN_LAYERS
    assert (names[0], names[-1]) == (many.names[0], many.names[-1])


@pytest.mark.parametrize("count", [1, 4, 9, 30])
@pytest.mark.parametrize("name", ["fc", "backbone.stages.3.blocks.22.convolution"])
def test_the_legend_of_layers_is_inside_the_figure(name, count):
    scales = tuple(0.5 + 0.05 * k for k in range(count))
    layers = LayerScores((name, "head"), (3.0, 2.0), scales, ((0.1,) * count, (0.2,) * count))
    figure = plot_equivariance(layers)
    figure.draw_without_rendering()
    ax, box = axis(figure), axis(figure).get_legend().get_window_extent()
    assert box.x0 >= ax.get_window_extent().x0 - 1
    assert box.x1 <= figure.bbox.x1
    assert ax.get_window_extent().y1 <= box.y0 <= box.y1 <= figure.bbox.y1
    assert sorted(legend(figure)) == sorted(f"at {s:g}×" for s in scales)


def test_a_legend_reads_row_by_row():
    scales = (0.5, 0.6, 0.75, 1.25, 1.5, 2.0)
    layers = LayerScores(("x" * 28,), (3.0,), scales, ((0.1,) * 6,))
    figure = plot_equivariance(layers)
    figure.draw_without_rendering()
    texts = axis(figure).get_legend().get_texts()
    texts = sorted(
        texts, key=lambda t: (-round(t.get_window_extent().y0), t.get_window_extent().x0)
    )
    assert [t.get_text() for t in texts] == [f"at {s:g}×" for s in scales]


def test_shortened():
    assert shortened("a \n\t b\x00", 10) == "a b"
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcd…ghijk"
    assert shortened("abcdefghijk", 10, keep="end") == "…cdefghijk"
