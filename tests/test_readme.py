"""What the README shows works and is true."""

from __future__ import annotations

import json
import re

import pytest


@pytest.fixture
def readme(pytestconfig):
    return (pytestconfig.rootpath / "README.md").read_text()


def test_python_snippets_run(readme):
    snippets = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    assert snippets
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})


def test_links_lead_somewhere(readme, pytestconfig):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", readme)
    assert links
    for link in links:
        assert (pytestconfig.rootpath / link).exists(), link


def test_the_table_is_the_committed_results(readme, pytestconfig):
    results = json.loads((pytestconfig.rootpath / "results" / "quickstart.json").read_text())
    for name, found in results["models"].items():
        shares = " | ".join(f"{100 * a:.0f}" for a in found["accuracy"].values())
        row = f"| {name} | {shares} | {found['parameters']:,} |"
        assert row in readme, row


def test_the_commands_of_the_table_exist(readme):
    from nearfar.cli.main import COMMANDS

    assert set(re.findall(r"\| `nearfar (\w+)", readme)) == set(COMMANDS)


def test_the_conversion_s_figures_are_the_committed_results(readme, pytestconfig):
    root = pytestconfig.rootpath
    rows = json.loads((root / "results" / "conversion.json").read_text())["rows"]
    page = (root / "docs" / "convert.md").read_text()
    for name, told in (
        ("original", "as it came"),
        ("fine-tuned, scales augmented", "trained on at many sizes, not converted"),
        ("pyramid-ensemble", "converted (pyramid ensemble), same training"),
    ):
        shares = " | ".join(f"{100 * a:.0f}" for a in rows[name]["accuracy"].values())
        assert f"| {told} | {shares} |" in readme, name
    for name, row in rows.items():
        shares = " | ".join(f"{100 * a:.1f}" for a in row["accuracy"].values())
        assert f"| {name} | {shares} | {100 * row['far_and_near']:.1f} |" in page, name
