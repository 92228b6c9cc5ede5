"""Choosing by hand how the operators are computed."""

from __future__ import annotations

import importlib
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

from nearfar.kernels import dispatch, plan


@contextmanager
def forced(engine, way, budget=None):
    """One engine, and every scale computed one way: by its level, or by tap maps."""
    module = importlib.import_module(f"nearfar.kernels.{engine}")
    rates = replace(
        module.CPU, budget=budget or module.CPU.budget, band=module.CPU.band and 5, least=0
    )
    cost = {"level": 1e9, "taps": -1e9}[way]
    plan.make_plan.cache_clear()
    with (
        mock.patch.object(
            dispatch, "_numba_engine", return_value=None if engine == "dense" else module
        ),
        mock.patch.object(module, "CPU", rates),
        mock.patch.object(plan, "_LEAST_CHANNELS", 1),
        mock.patch.object(plan, "_combining_cost", return_value=cost),
    ):
        yield
    plan.make_plan.cache_clear()
