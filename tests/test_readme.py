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
