"""The report: one self-contained HTML page that opens without network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jinja2
import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost
from nearfar.auditing.plots import COLOURS

__all__ = ["Example", "Report", "figure_bytes", "render_report"]


@dataclass(frozen=True)
class Example:
    """One test image at every scale, with every net's answer.

    Attributes:
        label: the right answer.
        images: ``[C, H, W]`` for each scale.
        answers: for each net, its answer at each scale.
    """

    label: str
    images: Sequence[Tensor]
    answers: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Report:
    """What a report shows.

    Attributes:
        title: what was compared.
        findings: sentences; the first is the headline.
        nets: for each net, the baseline first, what it is in a few words.
        curves: answers of each net, the baseline first.
        costs: for each net.
        seconds: for each net, a batch's time.
        batch: images in that batch.
        curve_figure: accuracy against scale.
        winner_figure: which scale won where.
        si_scales: the scales of the winner figure.
        winner_means: how the winning scale moves with size, as sentences.
        examples: images with answers.
        machine: where times were taken.
        command: what makes this report again.
        made: seed, versions and date, as a sentence.
    """

    title: str
    findings: Sequence[str]
    nets: Mapping[str, str]
    curves: Mapping[str, ScaleCurve]
    costs: Mapping[str, Cost]
    seconds: Mapping[str, float]
    batch: int
    curve_figure: Figure
    winner_figure: Figure
    si_scales: Sequence[float]
    winner_means: str
    examples: Sequence[Example]
    machine: str
    command: str
    made: str


def render_report(report: Report) -> str:
    """The whole page as HTML; pictures are inside, nothing is fetched."""
    first = next(iter(report.curves.values()))
    colours = dict(zip(report.curves, COLOURS, strict=False))
    ends = [s for s in (0.5, 1.0, 2.0) if s in first.scales]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nearfar.auditing"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html.j2").render(
        title=report.title,
        findings=report.findings,
        curves_svg=_inline(report.curve_figure),
        winners_svg=_inline(report.winner_figure),
        test_images=len(first.labels),
        scales=first.scales,
        ends=ends,
        batch=report.batch,
        nets=[
            {
                "name": name,
                "what": report.nets[name],
                "colour": colours[name],
                "parameters": report.costs[name].parameters,
                "multiplications": report.costs[name].multiplications,
                "seconds": report.seconds[name],
                "shown": [curve.accuracy(s) for s in ends],
            }
            for name, curve in report.curves.items()
        ],
        examples=[
            {
                "label": example.label,
                "pictures": [_png(image) for image in example.images],
                "answers": [
                    {"name": name, "colour": colours[name], "answers": answers}
                    for name, answers in example.answers.items()
                ],
            }
            for example in report.examples
        ],
        si_scales=report.si_scales,
        winner_means=report.winner_means,
        machine=report.machine,
        command=report.command,
        made=report.made,
    )


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as a ``png`` or ``svg`` file; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with mpl.rc_context({"svg.hashsalt": "nearfar", "svg.fonttype": "none"}):
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def _inline(figure: Figure) -> Markup:
    text = figure_bytes(figure, "svg").decode()
    return Markup(text[text.index("<svg") :])  # noqa: S704 (our own drawing, no outside text)


def _png(image: Tensor) -> str:
    levels = (image * 255).round().byte()
    pixels = levels[0].numpy() if image.shape[0] == 1 else levels.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()
