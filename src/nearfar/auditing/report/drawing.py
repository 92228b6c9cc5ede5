"""Pictures inside a page: figures, images, and what text is legible on a colour."""

from __future__ import annotations

import base64
import io
import re
import warnings

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

__all__ = ["figure_bytes", "ink", "inline", "png", "shade"]

_TAG = re.compile(r"<[^>]*>")
_NAME = re.compile(r'(\bid="|\bxlink:href="#|\bhref="#|url\(#)')


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as a ``png`` or ``svg`` file; a figure made anew of the same gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with (
        mpl.rc_context({"svg.hashsalt": "nearfar", "svg.fonttype": "none"}),
        warnings.catch_warnings(),
    ):
        # Names in any script: an SVG's text is drawn by who reads it, with the fonts that they have.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def inline(figure: Figure, key: str, says: str) -> Markup:
    """A figure as an SVG element inside a page.

    Args:
        figure: what to draw.
        key: another one for each figure of the page, of letters, digits and hyphens: ids inside the
            figure begin with it, since a page has each id once.
        says: what a screen reader says in its place.
    """
    text = figure_bytes(figure, "svg").decode()
    # Within tags only: names that stand in the figure as text are left alone.
    text = _TAG.sub(lambda tag: _NAME.sub(rf"\g<1>{key}-", tag[0]), text[text.index("<svg") :])
    opening = f'<svg role="img" aria-labelledby="{key}-says"'
    text = text.replace("<svg", opening, 1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    end = text.index(">") + 1
    title = f'<title id="{key}-says">{escape(says)}</title>'
    return Markup(text[:end] + title + text[end:])  # noqa: S704 (our own drawing; matplotlib escapes names)


def png(image: Tensor) -> str:
    """An image ``[C, H, W]`` of values from 0 to 1 as a data URI; of two channels the first is shown."""
    levels = (image.detach().cpu().float().nan_to_num().clamp(0, 1) * 255).round().byte()
    pixels = levels[0].numpy() if image.shape[0] < 3 else levels[:3].permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def ink(colour: str) -> str:
    """Black or white, whichever is read more easily on a colour: always at a contrast of 4.5 and more."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def shade(share: float) -> str:
    """The colour of an accuracy: white where all is right, dark red where nothing is."""
    wrong = min(max(1 - share, 0.0), 1.0)
    return mpl.colors.to_hex(mpl.colormaps["OrRd"](wrong)) if wrong > 0 else "#ffffff"
