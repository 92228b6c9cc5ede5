"""Modules imported for their signatures and docstrings alone, without torch and what stands on it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["light_imports"]

#: What is slow to import and of which no signature of a command needs more than the name.
_HEAVY = {
    *(
        "PIL",
        "jinja2",
        "lightning",
        "matplotlib",
        "numba",
        "numpy",
        "safetensors",
        "scipy",
        "sklearn",
    ),
    *("timm", "torch", "torchmetrics", "torchvision"),
}


@contextlib.contextmanager
def light_imports() -> Iterator[None]:
    """Puts empty modules in place of the heavy ones while a command's help is written.

    Help needs signatures and docstrings, and nothing is computed for it: with torch, timm and the rest it
    would take seconds. Sphinx does the same for documentation (``autodoc_mock_imports``). Where a module
    needs the real ones even to be imported, the error is dropped; what was imported is forgotten, so that
    it can be imported anew.
    """
    before = set(sys.modules)
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        with contextlib.suppress(Exception):
            yield
    finally:
        sys.meta_path.remove(finder)
        for name in set(sys.modules) - before:
            del sys.modules[name]


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_heavy = fullname.partition(".")[0] in _HEAVY
        return ModuleSpec(fullname, self, is_package=True) if is_heavy else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """There is nothing to execute."""


class _Empty(ModuleType):
    """Has every attribute; can be called, indexed, inherited from, and decorate a function, to no effect."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Empty(f"{self.__name__}.{name}")

    def __call__(self, *args: Any, **options: Any) -> Any:
        is_decorator = len(args) == 1 and not options and callable(args[0])
        return args[0] if is_decorator else _Empty(f"{self.__name__}()")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()

    def __getitem__(self, index: Any) -> _Empty:
        return self

    def __or__(self, other: Any) -> _Empty:
        return self

    __ror__ = __or__

    def __iter__(self) -> Iterator[Any]:
        return iter(())
