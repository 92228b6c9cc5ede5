"""Choosing by hand how the operators are computed."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from nearfar.kernels import choice, plan


@contextmanager
def forced(engine, way, budget=None):
    """One engine, and every scale computed one way: by its level, or by tap maps."""
    module = importlib.import_module(f"nearfar.kernels.{engine}")
    rates = replace(
        module.CPU, budget=budget or module.CPU.budget, band=module.CPU.band and 5, least=0
    )
    gain = {"level": 1e9, "taps": -1e9}[way]
    plan.make_plan.cache_clear()
    with (
        mock.patch.object(choice, "_native", return_value=None if engine == "dense" else module),
        mock.patch.object(module, "CPU", rates),
        mock.patch.object(plan, "_NARROWEST", 1),
        mock.patch.object(plan, "_combining", return_value=gain),
    ):
        yield
    plan.make_plan.cache_clear()
