"""The axis ``content``: what an image shows is zoomed about the middle of a canvas that never changes."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from nearfar.auditing.audit_spec import AuditSpec
from nearfar.auditing.audited_images import AuditedImages
from nearfar.auditing.audited_models import AuditedModel
from nearfar.auditing.axes.axis import AuditAxis, AuditPoints, register_axis
from nearfar.auditing.notes import enlarged_note, zoom_note
from nearfar.auditing.wording import ZOOM
from nearfar.data.preprocess import Images

__all__ = ["ContentAxis"]


@register_axis("content")
class ContentAxis(AuditAxis):
    """Zooms content by factors, on each model's own canvas.

    Args:
        scales: the factors; none: those of the baseline's protocol. 1 is added.
    """

    settings = ("scales",)
    zooms = True

    def __init__(self, scales: tuple[float, ...] = ()) -> None:
        self.scales = scales

    @classmethod
    def of(cls, spec: AuditSpec) -> ContentAxis:
        """The axis at a specification's scales."""
        return cls(spec.scales)

    def points(
        self, audited_models: Sequence[AuditedModel], images: AuditedImages | None
    ) -> AuditPoints:
        """The scales, 1 among them.

        Raises:
            InputError: a scale at which nothing would be on a canvas.
        """
        scales = self.scales or audited_models[0].protocol.test_scales
        notes: tuple[str, ...] = ()
        if 1.0 not in scales:
            scales = tuple(sorted((*scales, 1.0)))
            notes = ("1× was added to the scales: it is what the others are compared with.",)
        for model in audited_models:
            model.protocol.check_scale(min(scales), max(scales))
        return AuditPoints(scales, 1.0, ZOOM, notes)

    def show(self, model: AuditedModel, prepared: Images, point: float) -> Tensor:
        """Images at a scale on the model's canvas."""
        return model.show(prepared, point)

    def notes(
        self, model: AuditedModel, images: AuditedImages, points: AuditPoints
    ) -> tuple[str, ...]:
        """Canvas, cropping, padding, and from which scale on images are enlarged."""
        return (
            zoom_note(model.protocol),
            enlarged_note(model.protocol, images, points.values),
        )
