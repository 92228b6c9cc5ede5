from __future__ import annotations

import sys

import pytest
import torch

from nearfar.functional import pyramid_conv2d, si_conv2d
from nearfar.kernels import dense, dispatch, engine_for, reference_only


@pytest.fixture(autouse=True)
def _asked_anew():
    dispatch._numba_engine.cache_clear()
    yield
    dispatch._numba_engine.cache_clear()


def test_the_compiled_kernels_are_the_usual_way_on_a_cpu(monkeypatch):
    monkeypatch.delenv("NEARFAR_KERNELS", raising=False)
    for dtype in (torch.float32, torch.float64):
        assert engine_for(torch.empty(1, dtype=dtype))[0].__name__ == "nearfar.kernels.numba_engine"
    assert engine_for(torch.empty(1, dtype=torch.bfloat16))[0] is dense


def test_the_environment_can_take_plain_pytorch(monkeypatch):
    monkeypatch.setenv("NEARFAR_KERNELS", "torch")
    x = torch.randn(4, 8, 24, 20)
    assert engine_for(x)[0] is dense
    for operator in (si_conv2d, pyramid_conv2d):
        weight = torch.randn(16, 8, 3, 3, requires_grad=True)

        def run(operator=operator, weight=weight):
            y = operator(x, weight, padding=1, scales=(0.5, 1, 2))
            return y, *torch.autograd.grad(y.square().sum(), weight)

        actual = run()
        with reference_only():
            expected = run()
        for a, b in zip(actual, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-2)


def test_a_broken_numba_is_reported(monkeypatch):
    monkeypatch.delenv("NEARFAR_KERNELS", raising=False)
    monkeypatch.setitem(sys.modules, "nearfar.kernels.numba_engine", None)
    with pytest.warns(UserWarning, match="compiled kernels cannot be used .* reinstall numba"):
        assert engine_for(torch.empty(1))[0] is dense
