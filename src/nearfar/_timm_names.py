"""nearfar's networks under their names in timm's registry, as soon as timm is imported."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["register_with_timm"]


class _AfterTimm(MetaPathFinder):
    """Finds timm as Python does, and has nearfar's networks registered once timm has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module: ModuleType) -> None:
            execute(module)
            importlib.import_module("nearfar.models")

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


def register_with_timm() -> None:
    """Registers the networks now where timm is imported already, and else when it is.

    ``import nearfar`` calls it, so that ``timm.create_model("nearfar_…")`` works in either order of the
    two imports and nearfar alone does not wait for timm.
    """
    if "timm" in sys.modules:
        importlib.import_module("nearfar.models")
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())
