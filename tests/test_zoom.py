from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar import pyramid
from nearfar.errors import InputError
from nearfar.models import HierarchicalNet
from nearfar.pyramid import collapse, resample, zoom


def test_a_level_is_the_middle_seen_at_its_scale():
    """A ramp tells where it was read: bicubic interpolation reproduces straight lines exactly."""
    rows, columns = torch.meshgrid(
        torch.arange(20.0, dtype=torch.float64),
        torch.arange(30.0, dtype=torch.float64),
        indexing="ij",
    )
    ramp = (rows + 100 * columns).expand(1, 1, 20, 30)
    for scale in (1.0, 1.5, 2.0, 3.3):
        (level,) = zoom(ramp, (scale,), 8).levels
        positions = (torch.arange(8, dtype=torch.float64) + 0.5 - 4) / scale
        y, x = 10 - 0.5 + positions, 15 - 0.5 + positions
        torch.testing.assert_close(level[0, 0], y[:, None] + 100 * x, atol=1e-9, rtol=0)


def test_at_scale_one_it_is_a_crop():
    x = torch.rand(2, 3, 12, 16)
    torch.testing.assert_close(zoom(x, (1.0,), 6).levels[0], x[..., 3:9, 5:11])


def test_smaller_scales_are_antialiased():
    stripes = torch.tensor([0.0, 1.0]).repeat(32).expand(1, 1, 64, 64)
    (level,) = zoom(stripes, (0.25,), 8).levels
    torch.testing.assert_close(level, torch.full_like(level, 0.5), atol=2e-2, rtol=0)


def test_levels_know_where_they_lie():
    """Collapsed at the base grid, a zoomed level is a blurred image again, in its place."""
    x = torch.zeros(1, 1, 24, 24)
    x[..., 10:14, 12:16] = 1
    windows = zoom(x, (2.0,), 24)
    back = collapse(windows, "mean")
    inside = resample(windows.levels[0], windows.grids[0], windows.base)
    torch.testing.assert_close(back, inside)
    torch.testing.assert_close(back[..., 8:16, 10:18], x[..., 8:16, 10:18], atol=0.15, rtol=0)


def test_one_batch_gives_what_level_by_level_gives():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU())
    levels = zoom(torch.rand(4, 2, 15, 13), (1.0, 1.7), 10)
    one, each = pyramid.map(net, levels, as_one_batch=True), pyramid.map(net, levels)
    assert one.grids == each.grids
    for a, b in zip(one.levels, each.levels, strict=True):
        torch.testing.assert_close(a, b)


def test_in_one_batch_norms_see_all_levels():
    norm = nn.BatchNorm2d(1, momentum=1.0)
    levels = zoom(torch.rand(8, 1, 16, 16) ** 2, (1.0, 2.0), 8)
    pyramid.map(norm, levels, as_one_batch=True)
    together = torch.cat(levels.levels)
    torch.testing.assert_close(norm.running_mean[0], together.mean())
    assert not torch.allclose(norm.running_mean[0], levels.levels[-1].mean(), rtol=1e-4)


def test_a_hierarchical_net_looks_through_its_window():
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
    net = HierarchicalNet(inner, (1.0, 2.0), window=10)
    x = torch.rand(3, 1, 14, 14)
    levels = zoom(x, (1.0, 2.0), 10).levels
    summed = sum(inner(level).softmax(1) for level in levels).log()
    torch.testing.assert_close(net(x), summed)
    assert "window=10" in repr(net)
    elsewhere = x.clone()
    elsewhere[..., 0, :] += 5  # outside of the window at every scale
    torch.testing.assert_close(net(elsewhere), net(x))


def test_gradients_reach_the_image():
    x = torch.rand(1, 1, 9, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: zoom(v, (0.6, 1.3), 5).levels, (x,))


def test_bad_windows():
    with pytest.raises(InputError, match="windows of at least 1 sample, got size=0"):
        zoom(torch.rand(1, 1, 4, 4), (1.0,), 0)
    with pytest.raises(InputError, match="window must be a number of pixels, at least 1"):
        HierarchicalNet(nn.Identity(), window=0)
