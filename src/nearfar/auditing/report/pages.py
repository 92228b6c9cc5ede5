"""From a template to a page."""

from __future__ import annotations

import re
from typing import Any

import jinja2
from markupsafe import Markup, escape

__all__ = ["page"]


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
    environment.filters["size"] = lambda scale: f"{scale:g}×"
    environment.filters["interval"] = lambda ends: "–".join(f"{100 * end:.0f}" for end in ends)
    environment.filters["commas"] = lambda number: f"{number:,}"
    return environment.get_template(template).render(**values)


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after an underscore, a dot, a slash or a hyphen."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_./-])", name))
