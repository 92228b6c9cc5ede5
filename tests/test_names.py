"""The code speaks the field's language: names are nouns that say what they hold."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

#: Participles and fillers that say nothing of what a variable holds.
EMPTY = {
    *(
        "ask",
        "asked",
        "found",
        "given",
        "gone",
        "held",
        "here",
        "kept",
        "known",
        "learnt",
    ),
    *("made", "mine", "place", "said", "seen", "shown", "taken", "there", "told", "wanted"),
}
#: Words for which the field has its own; in names and in prose.
OWN_DIALECT = ("recogniser", "entrant", "committee", "lesson")
#: Modules that would be rooms for anything.
NO_ROOMS = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "misc",
    "tools",
    "stuff",
    "keeper",
    "sight",
}


def assigned_names(tree):
    """Variables, arguments, attributes, functions and classes that a file defines, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def source_files(root):
    files = sorted([*(root / "src").rglob("*.py"), *(root / "benchmarks").rglob("*.py")])
    assert len(files) > 100
    return files


def test_names_say_what_they_hold(pytestconfig):
    empty = [
        f"{path.relative_to(pytestconfig.rootpath)}:{line}: {name}"
        for path in source_files(pytestconfig.rootpath)
        for name, line in assigned_names(ast.parse(path.read_text()))
        if name.strip("_") in EMPTY
    ]
    assert empty == [], "name what it holds: predictions, logits, paths, checkpoint …"


@pytest.mark.parametrize("word", OWN_DIALECT)
def test_the_field_s_words_are_used(word, pytestconfig):
    root = pytestconfig.rootpath
    pages = [root / "README.md", root / "CONTRIBUTING.md", *(root / "docs").rglob("*.md")]
    users = [
        str(path.relative_to(root))
        for path in [*source_files(root), *pages]
        if word in path.read_text().lower()
    ]
    assert users == []


def test_files_are_named_by_what_is_in_them(pytestconfig):
    names = {path.stem for path in source_files(pytestconfig.rootpath)}
    assert names & NO_ROOMS == set()


def test_a_class_name_means_one_thing(pytestconfig):
    counts = Counter(
        node.name
        for path in (pytestconfig.rootpath / "src").rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in counts.items() if count > 1] == []


def test_what_the_rules_refuse():
    tree = ast.parse("found = 1\nfor _kept in x: pass\nself.seen = 2\ndef f(place): pass\n")
    names = [name.strip("_") for name, _ in assigned_names(tree)]
    assert sorted(set(names) & EMPTY) == ["found", "kept", "place", "seen"]
