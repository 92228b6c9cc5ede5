"""The README's table from results/quickstart.json: ``python -m benchmarks.readme_table`` rewrites it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from nearfar.atomic import write_atomically

ROOT = Path(__file__).parent.parent
MARK = "<!-- figures: results/quickstart.json -->\n"


def main() -> None:
    """Puts the committed figures where the mark is."""
    models = json.loads((ROOT / "results" / "quickstart.json").read_text())["models"]
    scales = list(models["plain"]["accuracy"])
    lines = [
        f"| net | {' | '.join(f'{float(s):g}×' for s in scales)} | parameters |",
        f"| --- |{' ---: |' * (len(scales) + 1)}",
    ]
    for name, figures in models.items():
        shares = " | ".join(f"{100 * figures['accuracy'][s]:.0f}" for s in scales)
        lines.append(f"| {name} | {shares} | {figures['parameters']:,} |")
    readme = (ROOT / "README.md").read_text()
    after = re.escape(MARK) + r"(?:@TABLE@\n|(?:\|.*\n)+)"
    new = re.sub(after, lambda _: MARK + "\n".join(lines) + "\n", readme)
    write_atomically(ROOT / "README.md", new)


if __name__ == "__main__":
    main()
