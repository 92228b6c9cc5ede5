"""What a reader has to know of how images were shown, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.wording import AxisWords
from nearfar.data import ScaleProtocol

__all__ = [
    "background_note",
    "common_notes",
    "covers",
    "enlarged_from_note",
    "enlarged_note",
    "zoom_note",
]

#: How many classes a sentence names.
_NAMED = 10
_BACKGROUNDS: dict[object, str] = {
    "black": "black",
    "grey": "grey",
    "edge": "filled with the content's outermost pixels",
}


def common_notes(
    model: AuditedModel, images: AuditedImages
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is said on every axis: before what an axis says of its points, and after it.

    Args:
        model: the classifier.
        images: of the audit.
    """
    in_chans = model.classifier.input_spec.in_chans
    colours = ""
    if in_chans != images.channels:
        colours = (
            "Grey images are shown with three equal channels."
            if images.channels == 1
            else "Colours are shown as grey: 0.299 R + 0.587 G + 0.114 B."
        )
    after = (colours, model.classifier.input_spec.assumed, model.classifier.answers_assumed)
    return tuple(filter(None, (_missing(images),))), tuple(filter(None, after))


def _missing(images: AuditedImages) -> str:
    """Which classes no image is of."""
    counts = images.labels.bincount(minlength=len(images.class_names))
    names = [images.class_names[c] for c in (counts == 0).nonzero().flatten().tolist()]
    if not names:
        return ""
    listed = ", ".join(names[:_NAMED]) + " …" * (len(names) > _NAMED)
    return (
        f"Of {len(names)} of {len(images.class_names)} classes there is no test image, so nothing is said of "
        f"them: {listed}."
    )


def zoom_note(protocol: ScaleProtocol) -> str:
    """How content is zoomed on a canvas."""
    height, width = protocol.canvas_size
    covered = covers(protocol, f"{protocol.content}·s")
    cut = min(c / n for c, n in zip(protocol.canvas_size, protocol.content_size, strict=True))
    background = background_note(protocol)
    return (
        f"At scale s {covered} about the middle of a canvas of {height}×{width}; what reaches beyond the "
        f"canvas is cut off, as it is above {cut:.3g}×, and what is left empty is {background}."
    )


def covers(protocol: ScaleProtocol, content: str) -> str:
    """What of an image covers how many pixels: ``an image's longer side covers 16 pixels``."""
    return {
        "shorter": f"the shorter side of an image covers {content} pixels",
        "longer": f"an image's longer side covers {content} pixels",
        "both": f"an image is stretched to {content} pixels on both sides",
    }[protocol.side]


def enlarged_from_note(
    protocols: Mapping[float, ScaleProtocol], images: AuditedImages, words: AxisWords
) -> str:
    """From which point on images are enlarged, where each point has a protocol of its own."""
    if images.sizes is None:
        return ""
    distinct, counts = torch.unique(images.sizes, dim=0, return_counts=True)
    for point, protocol in sorted(protocols.items()):
        enlarged = [protocol.enlarges(height, width, 1.0) for height, width in distinct.tolist()]
        count = int(counts[torch.tensor(enlarged)].sum())
        if count:
            return (
                f"From {words.text(point)} on, images are enlarged beyond the pixels they hold ({count:,} of "
                f"{len(images):,} there): detail is not added."
            )
    return "No image is enlarged beyond the pixels that it holds."


def background_note(protocol: ScaleProtocol) -> str:
    """What is left empty around an image."""
    return str(_BACKGROUNDS.get(protocol.background, f"of the colour {protocol.background}"))


def enlarged_note(protocol: ScaleProtocol, images: AuditedImages, scales: Sequence[float]) -> str:
    """From which scale on there are more pixels to fill than an image holds."""
    if images.sizes is None:
        return ""
    distinct, counts = torch.unique(images.sizes, dim=0, return_counts=True)
    sizes: list[tuple[int, int]] = [(height, width) for height, width in distinct.tolist()]
    # The largest scale at which an image is not enlarged: pixels it has over pixels it covers at scale 1.
    limits = torch.tensor(
        [
            min(n / r for n, r in zip(size, protocol.resized_size(*size), strict=True))
            for size in sizes
        ]
    )
    ordered = sorted(scales)

    def first_above(limit: float) -> float | None:
        return next((s for s in ordered if s > limit * (1 + 1e-6)), None)

    first = first_above(float(limits.min()))
    smallest = "×".join(str(n) for n in sizes[int(limits.argmin())])
    if first is None:
        return "No image is enlarged beyond the pixels that it holds."
    if len(sizes) == 1:
        return (
            f"From {first:g}× on, images are enlarged beyond the {smallest} pixels they hold: detail is not "
            f"added."
        )
    half = first_above(float(limits.repeat_interleave(counts).median()))
    rest = (
        "fewer than half of them are at any scale"
        if half is None
        else f"from {half:g}× on at least half"
    )
    return (
        f"From {first:g}× on, some images are enlarged beyond the pixels they hold (the first has "
        f"{smallest}), {rest}: detail is not added."
    )
