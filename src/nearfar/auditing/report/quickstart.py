"""The quickstart's report: five nets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost
from nearfar.auditing.plots import colour_of
from nearfar.auditing.report.page import inline, page, png, text_colour

__all__ = ["Example", "Report", "render_report"]


@dataclass(frozen=True)
class Example:
    """One test image at every scale, with every net's prediction.

    Attributes:
        label: the true class.
        images: ``[C, H, W]`` for each scale.
        predictions: for each net, the class predicted at each scale.
    """

    label: str
    images: Sequence[Tensor]
    predictions: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Report:
    """The contents of the quickstart's report.

    Attributes:
        title: of the page.
        findings: sentences; the first is the headline.
        nets: a description of each net in a few words, the baseline first.
        curves: of each net, the baseline first.
        costs: of each net.
        seconds: of each net, for a batch.
        batch: images in that batch.
        curve_figure: accuracy against scale.
        winner_figure: which scale won where.
        si_scales: the scales of the winner figure.
        winner_means: how the winning scale moves with size, as sentences.
        examples: images with answers.
        machine: where times were taken.
        command: what makes this report again.
        provenance: seed, versions and date, as a sentence.
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
    provenance: str


def render_report(report: Report) -> str:
    """The whole page as HTML; pictures are inside, nothing is fetched."""
    first = next(iter(report.curves.values()))
    colours = {name: colour_of(index) for index, name in enumerate(report.curves)}
    ends = [s for s in (0.5, 1.0, 2.0) if s in first.scales]
    return page(
        "quickstart.html.j2",
        title=report.title,
        findings=report.findings,
        curves_svg=inline(
            report.curve_figure, "curves", f"Accuracy against scale. {report.findings[0]}"
        ),
        winners_svg=inline(
            report.winner_figure, "winners", "Which scale won where in the SI-layers' maps."
        ),
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
                "accuracies": [curve.accuracy(s) for s in ends],
            }
            for name, curve in report.curves.items()
        ],
        examples=[
            {
                "label": example.label,
                "pictures": [png(image) for image in example.images],
                "rows": [
                    {
                        "name": name,
                        "colour": colours[name],
                        "ink": text_colour(colours[name]),
                        "predictions": predictions,
                    }
                    for name, predictions in example.predictions.items()
                ],
            }
            for example in report.examples
        ],
        si_scales=report.si_scales,
        winner_means=report.winner_means,
        machine=report.machine,
        command=report.command,
        provenance=report.provenance,
    )
