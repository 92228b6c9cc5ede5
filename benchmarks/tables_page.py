"""The committed tables of ``nearfar reproduce`` as a page of the docs.

python -m benchmarks.tables_page    writes docs/tables.md below its marker, and docs/tables/*.png
"""

from __future__ import annotations

import shutil
from pathlib import Path

from nearfar.atomic import write_atomically
from nearfar.experiments.tables import TABLES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "tables.md"
PICTURES = ROOT / "docs" / "tables"
MARKER = "<!-- tables -->"


def page(text: str) -> str:
    """The page with every table that has results, in the order of the commands.

    Args:
        text: the page as it is; what stands above the marker is kept.
    """
    parts = [text.split(MARKER)[0] + MARKER]
    for name in TABLES:
        table = ROOT / "results" / name / "table.md"
        if table.is_file():
            title, _, rest = table.read_text(encoding="utf-8").partition("\n")
            rest = rest.replace("`results.json`", f"`results/{name}/results.json`")
            parts.append(f"#{title}\n\n![{title.lstrip('# ')}](tables/{name}.png)\n{rest.rstrip()}")
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Writes the page and its pictures."""
    write_atomically(PAGE, page(PAGE.read_text(encoding="utf-8")))
    PICTURES.mkdir(exist_ok=True)
    for name in TABLES:
        picture = ROOT / "results" / name / "picture.png"
        if picture.is_file():
            shutil.copyfile(picture, PICTURES / f"{name}.png")


if __name__ == "__main__":
    main()
