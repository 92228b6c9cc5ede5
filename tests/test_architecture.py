"""The house as docs/architecture.md draws it: imports flow one way."""

from __future__ import annotations

import ast
import re

import pytest

ORDER = [
    {"errors", "version", "progress", "reference", "_lazy", "_timm_names"},
    {"scale_sets", "atomic", "provenance", "records", "pretrained", "peers"},
    {"grid"},
    {"symbolic_sizes"},
    {"resampling"},
    {"pyramid"},
    {"kernels"},
    {"functional"},
    {"layers"},
    {"models", "data"},
    {"counting"},
    {"conversion"},
    {"training"},
    {"classifiers"},
    {"wrapping"},
    {"auditing"},
    {"deploy"},
    {"experiments"},
    {"cli"},
]
RANK = {package: rank for rank, rooms in enumerate(ORDER) for package in rooms}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearfar"):
            rest = (node.module or "").split(".")[1:]
            yield from ([rest[0]] if rest else [alias.name for alias in node.names])


def test_nothing_knows_of_what_comes_after_it(pytestconfig):
    source = pytestconfig.rootpath / "src" / "nearfar"
    count = 0
    for path in sorted(source.rglob("*.py")):
        if path == source / "__init__.py":
            continue
        package = path.relative_to(source).parts[0].removesuffix(".py")
        for other in imports(path):
            count += 1
            fine = other == package or RANK[other] < RANK[package]
            assert fine, f"{path.relative_to(source)} imports nearfar.{other}"
    assert count > 50


def test_maps_are_rescaled_in_one_place_and_warped_in_one(pytestconfig):
    source = pytestconfig.rootpath / "src" / "nearfar"

    def users(names):
        calls = re.compile(rf"\b({names})\(")
        return [path.name for path in source.rglob("*.py") if calls.search(path.read_text())]

    assert users("interpolate") == ["resampling.py"]
    assert users("grid_sample|affine_grid") == ["warping.py"]


def test_every_module_is_in_the_drawing(pytestconfig):
    root = pytestconfig.rootpath
    drawing = (root / "docs" / "architecture.md").read_text()
    for path in (root / "src" / "nearfar").iterdir():
        name = f"{path.name}/" if path.is_dir() else path.name
        if not name.startswith("_") and name not in ("py.typed", "version.py"):
            assert f"  {name} " in drawing, name


def test_files_are_short(pytestconfig):
    for path in (pytestconfig.rootpath / "src").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_no_room_of_odds_and_ends(pytestconfig, name):
    assert not list((pytestconfig.rootpath / "src").rglob(f"{name}*"))
