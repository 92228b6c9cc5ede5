"""The quickstart's report: five nets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from torch import Tensor

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost
from nearfar.auditing.plots import colour_of
from nearfar.auditing.report.drawing import ink, inline, png
from nearfar.auditing.report.pages import page

__all__ = ["Example", "Report", "render_report"]


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
    colours = {name: colour_of(place) for place, name in enumerate(report.curves)}
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
                "shown": [curve.accuracy(s) for s in ends],
            }
            for name, curve in report.curves.items()
        ],
        examples=[
            {
                "label": example.label,
                "pictures": [png(image) for image in example.images],
                "answers": [
                    {
                        "name": name,
                        "colour": colours[name],
                        "ink": ink(colours[name]),
                        "answers": answers,
                    }
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
