"""The Triton kernels against the dense engine, in Triton's interpreter.

Triton must be told to interpret before it is imported, and this process may want it for something else.
So this module's checks are no tests by name: one test runs them in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import pytest
import torch

from nearfar.functional import pyramid_conv2d, si_conv2d
from nearfar.grid import Window, base_grid, level_grid
from nearfar.kernels import dense, reference_only
from nearfar.kernels.composition import Composition
from nearfar.kernels.plan import make_plan
from nearfar.kernels.taps import Taps, restoring_taps, scale_taps
from nearfar.kernels.workspace import Workspace

TOLERANCE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-10, "atol": 1e-10},
    torch.bfloat16: {"rtol": 0.02, "atol": 0.05},
    torch.float16: {"rtol": 0.005, "atol": 0.01},
}
#: (height, width), window, scales, channels; small, since the interpreter is slow. The last two need
#: several tiles of columns and of channels.
GEOMETRIES = {
    "1x1": ((3, 5), Window.make(1), (0.5, 1.0, 2.0), 3),
    "3x3": ((3, 4), Window.make(3, padding=1), (0.5, 1.0, 2.0), 5),
    "2x3, stride, dilation": ((4, 5), Window.make((2, 3), (2, 1), 2, (1, 2)), (0.7, 1.5), 4),
    "narrow channels": ((1, 35), Window.make((1, 3), padding=(0, 1)), (1.0, 1.3333), 16),
    "wide channels": ((1, 11), Window.make((1, 3), padding=(0, 1)), (1.0, 0.6), 70),
}


@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
def test_in_the_interpreter(pytestconfig):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    # The interpreter is not safe for threads, and a batch is shared by as many as torch has.
    environment = {**inherited, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    options = ["-q", "-p", "no:cacheprovider", "-o", "python_functions=check_*"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(Path(__file__).resolve())],
        cwd=pytestconfig.rootpath,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def engine():
    from nearfar.kernels import triton_engine

    assert os.environ.get("TRITON_INTERPRET") == "1"
    assert torch.get_num_threads() == 1
    return triton_engine


def taps_of(name):
    """Rows and columns of all scales by tap maps, and the channels."""
    size, window, scales, channels = GEOMETRIES[name]
    base = base_grid(*size)
    target = window.apply(base)
    axes = []
    for a in (0, 1):
        geometry = (window.kernel[a], window.stride[a], window.padding[a][0], window.dilation[a])
        levels = [level_grid(*size, s) for s in scales]
        matrices = [
            scale_taps(base[a], level[a], window.apply(level)[a], target[a], geometry, True)
            for level in levels
        ]
        axes.append(Taps.of(matrices))
    return *axes, channels


def maps_for(rows, columns, channels, dtype):
    shape = (rows.taps, rows.samples, 2, columns.samples, columns.taps, channels)
    return torch.randn(shape, dtype=dtype)


def view_into_larger(rows, columns, channels, fill):
    """A view into a larger tensor: its rows and channels are slices, what lies around must stay."""
    whole = fill(2, rows.outputs + 3, columns.outputs, channels + 4)
    return whole, whole[:, 2 : rows.outputs + 2, :, 3 : channels + 3]


def combined(by, maps, rows, columns, channels, rank, ranked, dtype):
    """``best`` and ``won``, whole and as views; at rank 0 ``best`` holds garbage before."""
    torch.manual_seed(1)
    best, part = view_into_larger(
        rows, columns, channels, lambda *size: torch.randn(size).to(dtype)
    )
    if rank == 0:
        part.fill_(torch.nan)
    won, owner = view_into_larger(rows, columns, channels, lambda *size: torch.zeros(size).byte())
    if rank > 0:
        owner.copy_(torch.randint(rank, owner.shape))
    by.combine(maps, rows, columns, part, owner if ranked else None, rank, Workspace())
    return best, won


@pytest.mark.parametrize(
    ("dtype", "rank", "ranked"),
    [
        (torch.float64, 0, True),
        (torch.float32, 2, True),
        (torch.float32, 0, False),
        (torch.float64, 2, False),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", GEOMETRIES)
def check_combine(engine, name, dtype, rank, ranked):
    rows, columns, channels = taps_of(name)
    maps = maps_for(rows, columns, channels, dtype)
    arguments = (maps, rows, columns, channels, rank, ranked, dtype)
    best, won = combined(engine, *arguments)
    expected, expected_won = combined(dense, *arguments)
    torch.testing.assert_close(best, expected, **TOLERANCE[dtype])
    assert torch.equal(won, expected_won)
    assert not ranked or len(won.unique()) > 1


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "half"])
def check_combine_of_short_floats(engine, dtype, rank):
    rows, columns, channels = taps_of("1x1")
    maps = maps_for(rows, columns, channels, dtype)
    arguments = (maps, rows, columns, channels, rank, True, dtype)
    best, won = combined(engine, *arguments)
    expected, expected_won = combined(dense, *arguments)
    assert best.dtype == dtype
    torch.testing.assert_close(best, expected, **TOLERANCE[dtype])
    assert (won == expected_won).float().mean() > 0.98


def check_combine_later_scales_need_to_be_larger(engine):
    (size, window, _, channels) = GEOMETRIES["3x3"]
    base, target = base_grid(*size), window.apply(base_grid(*size))
    once = [scale_taps(base[a], base[a], *[target[a]] * 2, (3, 1, 1, 1), True) for a in (0, 1)]
    twice = [Taps.of([matrix, matrix]) for matrix in once]
    maps = maps_for(*twice, channels, torch.float64)
    _, won = combined(engine, maps, *twice, channels, 0, True, torch.float64)
    assert not won.any()


@pytest.mark.parametrize("rank", [0, 1])
def check_nan_wins_where_it_is_read_and_nowhere_else(engine, rank):
    rows, columns, channels = taps_of("3x3")
    clean = maps_for(rows, columns, channels, torch.float64)
    broken = torch.zeros_like(clean, dtype=torch.bool)
    broken[0, 2, 0, 3, 1, 4] = broken[2, 0, 1, 0, 2, 1] = True
    arguments = (rows, columns, channels, rank, True, torch.float64)
    best, won = combined(engine, clean.masked_fill(broken, torch.nan), *arguments)

    # Which outputs of which scale read a broken place: the same sum, of ones.
    reads = [
        (taps.matrix != 0).double().view(taps.scales, taps.outputs, taps.taps, taps.samples)
        for taps in (rows, columns)
    ]
    hit = torch.einsum("sojm,spkn,jmbnkc->sbopc", *reads, broken.double()) > 0
    expected, expected_won = combined(dense, clean.masked_fill(broken, 0.0), *arguments)
    inner = (slice(None), slice(2, rows.outputs + 2), slice(None), slice(3, channels + 3))
    expected[inner] = expected[inner].masked_fill(hit.any(dim=0), torch.nan)
    for s in range(rows.scales):  # the last to be NaN has it
        expected_won[inner] = expected_won[inner].masked_fill(hit[s], rank + s)
    assert 0 < hit.any(dim=0).sum() < 0.5 * hit[0].numel()
    torch.testing.assert_close(best, expected, equal_nan=True, **TOLERANCE[torch.float64])
    # No number is larger than NaN, so where an earlier scale is NaN no later one wins.
    assert torch.equal(won, expected_won)


@pytest.mark.parametrize(("dtype", "rank"), [(torch.float64, 0), (torch.float32, 2)], ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def check_spread(engine, name, dtype, rank):
    compare_spread(engine, name, dtype, rank)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def check_spread_of_short_floats(engine, dtype):
    compare_spread(engine, "1x1", dtype, 1)


def compare_spread(engine, name, dtype, rank):
    rows, columns, channels = taps_of(name)
    _, g = view_into_larger(rows, columns, channels, lambda *size: torch.randn(size).to(dtype))
    # Some are won by scales before these, and some by scales after.
    last = rank + rows.scales + 1
    _, won = view_into_larger(
        rows, columns, channels, lambda *size: torch.randint(last, size).byte()
    )
    actual = []
    for by in (engine, dense):
        maps = torch.full_like(maps_for(rows, columns, channels, dtype), torch.nan)
        by.spread(g, won, rows, columns, rank, maps, Workspace())
        actual.append(maps)
    torch.testing.assert_close(*actual, **TOLERANCE[dtype])


def check_spread_keeps_out_what_others_won(engine):
    rows, columns, channels = taps_of("1x1")
    g = torch.full((2, rows.outputs, columns.outputs, channels), torch.nan)
    won = torch.full(g.shape, rows.scales, dtype=torch.uint8)
    maps = torch.full_like(maps_for(rows, columns, channels, g.dtype), torch.nan)
    engine.spread(g, won, rows, columns, 0, maps, Workspace())
    assert torch.equal(maps, torch.zeros_like(maps))


@pytest.mark.parametrize("scale", [0.5, 1.5])
def check_one_level_through_permuted_maps(engine, scale):
    size, window = (7, 6), Window.make(3, 2, 1)
    level_outputs, target = window.apply(level_grid(*size, scale)), window.apply(base_grid(*size))
    rows, columns = (restoring_taps(level_outputs[a], target[a]) for a in (0, 1))
    output = torch.randn(2, 5, rows.samples, columns.samples)
    maps = output.contiguous(memory_format=torch.channels_last).permute(2, 0, 3, 1)
    arguments = (maps[None, :, :, :, None], rows, columns, 5, 1, True, torch.float32)
    for a, b in zip(combined(engine, *arguments), combined(dense, *arguments), strict=True):
        torch.testing.assert_close(a, b)
    g = torch.randn(2, rows.outputs, columns.outputs, 5)
    won = torch.randint(3, g.shape).byte()
    actual = []
    for by in (engine, dense):
        back = torch.full((2, rows.samples, columns.samples, 5), torch.nan)
        by.spread(g, won, rows, columns, 1, back.transpose(0, 1)[None, :, :, :, None], Workspace())
        actual.append(back)
    torch.testing.assert_close(*actual, **TOLERANCE[torch.float32])


def check_lists_are_kept(engine):
    rows, columns, channels = taps_of("1x1")
    maps = maps_for(rows, columns, channels, torch.float32)
    combined(engine, maps, rows, columns, channels, 0, True, maps.dtype)
    before = {key: tuple(map(id, value)) for key, value in rows.cache.items()}
    combined(engine, maps, rows, columns, channels, 0, True, maps.dtype)
    assert before
    assert {key: tuple(map(id, value)) for key, value in rows.cache.items()} == before


@pytest.fixture
def only(engine, monkeypatch):
    monkeypatch.setattr("nearfar.kernels.dispatch._numba_engine", lambda: engine)
    monkeypatch.setattr(engine, "CPU", replace(engine.GPU, least=0), raising=False)
    for step in ("combine", "spread"):
        monkeypatch.setattr(engine, step, mock.Mock(wraps=getattr(engine, step)))
    yield engine
    assert engine.combine.called
    assert engine.spread.called


def check_the_layer(only):
    x = torch.randn(1, 6, 6, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(9, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    scales, size = (0.5, 2.0, 3.0), (6, 5)
    composition = Composition(Window.make(3, 1, 1), 1, scales, (0, 1, 2), True, "max")
    plan = make_plan(size, composition, (6, 9), only.CPU)
    assert plan.levels
    assert len(plan.shared) > 1

    def run():
        y, winner = si_conv2d(x, weight, None, padding=1, scales=scales, return_winner=True)
        g = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        return y, winner, *torch.autograd.grad((y * g).sum(), [x, weight])

    actual = run()
    with torch.no_grad():
        assert torch.equal(si_conv2d(x, weight, None, padding=1, scales=scales), actual[0])
    with reference_only():
        expected = run()
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def check_the_pyramid_layer(only):
    x = torch.randn(2, 3, 8, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)

    def run():
        y = pyramid_conv2d(x, weight, padding=1, scales=(0.5, 1.0, 2.0))
        return y, *torch.autograd.grad(y.square().sum(), [x, weight])

    actual = run()
    with reference_only():
        expected = run()
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
