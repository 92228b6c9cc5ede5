"""How large the source is: ``python -m benchmarks.source_size [SOURCE ...]`` (default ``src/nearfar``).

A row for each package folder, of this version or another one checked out beside it: files and lines of
Python, the longest file, functions, those over 70 lines, names in ``__init__`` files. Prints; writes nothing.
Start-up times: ``python -m benchmarks.startup``.
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LONG = 70


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sources", nargs="*", type=Path, default=[ROOT / "src" / "nearfar"])
    options = parser.parse_args()
    print("| source | files | lines | longest | functions | over 70 lines | names in `__init__`s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for source in options.sources:
        print("| " + " | ".join(map(str, (source, *sizes(source)))) + " |")


def sizes(source: Path) -> tuple[int, ...]:
    """Files, lines, the longest file, functions, those over 70 lines, names in ``__init__`` files."""
    texts = {path: path.read_text("utf-8") for path in sorted(source.rglob("*.py"))}
    if not texts:
        sys.exit(f"no Python files in {source}; give a package's folder, such as src/nearfar")
    lines = [text.count("\n") for text in texts.values()]
    lengths = [
        node.end_lineno - node.lineno + 1
        for text in texts.values()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno
    ]
    names = sum(
        len(node.value.elts)
        for path, text in texts.items()
        if path.name == "__init__.py"
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if isinstance(node.value, ast.List | ast.Tuple)
    )
    over = sum(length > LONG for length in lengths)
    return len(texts), sum(lines), max(lines), len(lengths), over, names


if __name__ == "__main__":
    main()
