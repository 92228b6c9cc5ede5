"""What a reader has to know of how images were shown, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nearfar.auditing.entrants import Entrant
from nearfar.auditing.images import AuditedImages
from nearfar.data import ScaleProtocol

__all__ = ["shown_notes"]

_BACKGROUNDS = {
    "black": "black",
    "grey": "grey",
    "edge": "filled with the content's outermost pixels",
}


def shown_notes(
    entrant: Entrant, images: AuditedImages, scales: Sequence[float]
) -> tuple[str, ...]:
    """How images were shown to a recogniser: canvas, cropping, padding, colours, and where detail ends.

    Args:
        entrant: the recogniser.
        images: of the audit.
        scales: of the audit.
    """
    protocol = entrant.protocol
    channels = int(images.stored[protocol.side].images.shape[1])
    notes = [_canvas(protocol), _enlarged(protocol, images, scales)]
    if entrant.recogniser.card.in_chans != channels:
        notes.append("Grey images are shown with three equal channels.")
    return tuple(note for note in notes if note)


def _canvas(protocol: ScaleProtocol) -> str:
    side = f"{protocol.canvas}×{protocol.canvas}"
    if protocol.side == "shorter":
        covers = f"the middle square of an image covers {protocol.content}·s pixels"
    else:
        covers = f"an image's longer side covers {protocol.content}·s pixels"
    return (
        f"At scale s {covers} about the middle of a canvas of {side}; what reaches beyond the canvas is cut "
        f"off, as it is above {protocol.canvas / protocol.content:.3g}×, and what is left empty is "
        f"{_BACKGROUNDS[protocol.background]}."
    )


def _enlarged(protocol: ScaleProtocol, images: AuditedImages, scales: Sequence[float]) -> str:
    """From which scale on there are more pixels to fill than an image holds."""
    native = images.native(protocol.side)
    ordered = sorted(scales)
    if native is None:
        stored = int(images.stored[protocol.side].images.shape[-1])
        return (
            f"From which scale on images are enlarged beyond what they hold is not known: they are read when "
            f"they are needed, and stored at {stored} pixels."
        )
    least = int(native.min())
    first = _first(protocol, native.min(), ordered)
    if first is None:
        return "No image is enlarged beyond the pixels that it holds."
    if least == int(native.max()):
        return (
            f"From {first:g}× on, images are enlarged beyond the {least} pixels they hold: detail is not "
            f"added."
        )
    half = _first(protocol, native.median(), ordered)
    rest = (
        "fewer than half of them are at any scale"
        if half is None
        else f"from {half:g}× on at least half"
    )
    return (
        f"From {first:g}× on, some images are enlarged beyond what they hold (the smallest holds {least} "
        f"pixels), {rest}: detail is not added."
    )


def _first(protocol: ScaleProtocol, native: Tensor, ordered: Sequence[float]) -> float | None:
    # Rounding must not call an image enlarged that is shown as it is.
    limit = float(native) * (1 + 1e-6)
    return next((s for s in ordered if protocol.content * s > limit), None)
