"""From a template to a page: values as text, figures as SVG, images as data."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import jinja2
import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from nearfar.auditing.plots.axes import quiet_fonts
from nearfar.auditing.wording import ZOOM

__all__ = ["figure_bytes", "inline", "page", "png", "shade", "text_colour"]

_TAG = re.compile(r"<[^>]*>")
_NAME = re.compile(r'(\bid="|\bxlink:href="#|\bhref="#|url\(#)')


def page(template: str, **values: Any) -> str:
    """A page from one of our templates; all text in it is escaped, and every value must be there."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nearfar.auditing"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    environment.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    environment.filters["size"] = lambda scale, words=ZOOM: words.text(scale)
    environment.filters["commas"] = lambda number: f"{number:,}"
    return environment.get_template(template).render(**values)


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as a ``png`` or ``svg`` file; a figure made anew of the same gives the same bytes."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with mpl.rc_context({"svg.hashsalt": "nearfar", "svg.fonttype": "none"}), quiet_fonts():
        figure.savefig(buffer, format=kind, dpi=160, metadata=metadata)
    return buffer.getvalue()


def inline(figure: Figure, key: str, description: str) -> Markup:
    """A figure as an SVG element inside a page.

    Args:
        figure: what to draw.
        key: unique in the page, of letters, digits and hyphens: ids inside the figure begin with it.
        description: for screen readers.
    """
    text = figure_bytes(figure, "svg").decode()
    # Within tags only: text in the figure is left alone.
    text = _TAG.sub(lambda tag: _NAME.sub(rf"\g<1>{key}-", tag[0]), text[text.index("<svg") :])
    opening = f'<svg role="img" aria-labelledby="{key}-description"'
    text = text.replace("<svg", opening, 1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    end = text.index(">") + 1
    title = f'<title id="{key}-description">{escape(description)}</title>'
    return Markup(text[:end] + title + text[end:])  # noqa: S704 (our own drawing; matplotlib escapes names)


def png(image: Tensor) -> str:
    """An image ``[C, H, W]`` of values from 0 to 1 as a data URI; of two channels the first is shown."""
    levels = (image.detach().cpu().float().nan_to_num().clamp(0, 1) * 255).round().byte()
    pixels = levels[0].numpy() if image.shape[0] < 3 else levels[:3].permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def text_colour(colour: str) -> str:
    """Black or white, whichever is more legible on a colour: the contrast is at least 4.5."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


def shade(share: float) -> str:
    """The colour of an accuracy: white where all is right, dark red where nothing is."""
    wrong = min(max(1 - share, 0.0), 1.0)
    return mpl.colors.to_hex(mpl.colormaps["OrRd"](wrong)) if wrong > 0 else "#ffffff"


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore, a dot, a slash or a hyphen."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_./-])", name))
