"""Receptive fields: published ones, and those that gradients show."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F

from nearfar.counting import count
from nearfar.grid import Window
from nearfar.layers import AxisField, PyramidConv2d, ScaleConv2d, ScaleLayer, ScalePool, SIConv2d
from nearfar.models.initialisation import reset_he
from nearfar.pyramid import collapse, expand
from nearfar.pyramid import map as map_levels


def row_of(model, size, name):
    return {row.name: row for row in count(model, size).rows}[name]


def on_meta(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options)


def test_lenet():
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(400, 10)),
    )
    table = count(net, (1, 28, 28))
    assert [row.field for row in table.rows] == [(5, 5), (6, 6), (14, 14), (16, 16), None]
    assert [row.reach for row in table.rows] == ["pixels"] * 4 + ["whole image"]
    assert [row.covers for row in table.rows] == [False] * 4 + [True]


def stride_first(model):
    """The first ResNets halve in a block's first convolution; timm's in its second."""
    for block in (model.layer2[0], model.layer3[0], model.layer4[0]):
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    return model


@pytest.mark.parametrize(
    ("model", "layer", "field"),
    [
        # A. Araujo et al., "Computing Receptive Fields of Convolutional Neural Networks", Distill 2019.
        (lambda: on_meta("vgg16"), "features.30", 212),
        (lambda: stride_first(on_meta("resnet50")), "layer4.2.conv3", 483),
        (lambda: stride_first(on_meta("resnet101")), "layer4.2.conv3", 1027),
        (lambda: on_meta("mobilenetv1_100"), "blocks.4.1.conv_pw", 315),
        # 11 + 3·8 + (8 + 3·16) + (16 + 5·32) + (32 + 2·64), by hand.
        (lambda: on_meta("resnet50"), "layer4.2.conv3", 427),
    ],
)
def test_published_fields(model, layer, field):
    row = row_of(model(), (3, 224, 224), layer)
    assert row.field == (field, field)
    assert row.covers == (field != 212)


def test_inception_s_widest_branch():
    fields = [row.field for row in count(on_meta("inception_v3"), (3, 299, 299)).rows if row.field]
    assert max(fields)[0] == 1311  # published, as above


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.narrow, self.wide = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=2, dilation=2)
        self.last = nn.Conv2d(4, 2, 3, padding=1, stride=2)

    def forward(self, x):
        return self.last(torch.cat([self.narrow(x), F.relu(self.wide(x))], dim=1))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.inner = nn.Conv2d(2, 2, (5, 1), padding=(2, 0))
        self.last = nn.Conv2d(2, 2, 2)

    def forward(self, x):
        x = self.first(x)
        return self.last(x + self.inner(x).permute(0, 2, 3, 1).permute(0, 3, 1, 2))


class Sliced(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(8, 1, 3)

    def forward(self, x):
        x = F.pad(x, (3, 1, 2, 2))[:, :, 1:-1]
        parts = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        smallest = min(p.shape[2] for p in parts), min(p.shape[3] for p in parts)
        return self.last(torch.cat([p[..., : smallest[0], : smallest[1]] for p in parts], 1))


class Up(nn.Module):
    def __init__(self, **how):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, stride=2, padding=1)
        self.how = how
        self.last = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        return self.last(F.interpolate(self.first(x), **self.how))


class Tokens(nn.Module):
    """Through a dense layer over channels and back."""

    def __init__(self):
        super().__init__()
        self.patch, self.mix = nn.Conv2d(2, 4, 4, stride=4), nn.Linear(4, 4)
        self.last = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, x):
        x = self.patch(x)
        tokens = self.mix(x.flatten(2).transpose(1, 2))
        return self.last(tokens.transpose(1, 2).reshape(x.shape))


class OverPyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = ScaleConv2d(2, 2, 3, stride=2, padding=1, scale_extent=2)
        self.pool = ScalePool("mean")
        self.last = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x):
        return self.last(self.pool(self.conv(expand(x, (1, 0.5, 0.25)))))


def then(*layers):
    return nn.Sequential(*layers, nn.Conv2d(2, 1, 3, padding=1))


NETS = {
    "strides": lambda: then(nn.Conv2d(2, 2, 5, stride=3, padding=2), nn.AvgPool2d(2)),
    "dilation": lambda: then(nn.Conv2d(2, 2, 3, dilation=3), nn.AvgPool2d(3, 2, 1)),
    "groups": lambda: then(nn.Conv2d(2, 2, (1, 7), groups=2, padding=(0, 3))),
    "even": lambda: then(nn.Conv2d(2, 2, 4, padding="same", dilation=2), nn.AvgPool2d(2)),
    "transposed": lambda: then(nn.Conv2d(2, 2, 3, stride=2), nn.ConvTranspose2d(2, 2, 4, 2, 1)),
    "holes": lambda: then(nn.ConvTranspose2d(2, 2, 3, stride=2, dilation=2)),
    "response norm": lambda: then(nn.Conv2d(2, 2, 5), nn.LocalResponseNorm(2)),
    "branches": Branches,
    "residual": Residual,
    "slices": Sliced,
    "tokens": Tokens,
    "nearest": lambda: Up(scale_factor=2, mode="nearest"),
    "nearest-exact": lambda: Up(size=(41, 50), mode="nearest-exact"),
    "bilinear": lambda: Up(scale_factor=2, mode="bilinear"),
    "corners": lambda: Up(size=(41, 50), mode="bilinear", align_corners=True),
    "smaller": lambda: Up(size=(13, 20), mode="bilinear"),
    "antialias": lambda: Up(size=(13, 20), mode="bilinear", antialias=True),
    "shuffle": lambda: then(nn.Conv2d(2, 8, 3, padding=1), nn.PixelShuffle(2)),
    "unshuffle": lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(8, 1, 3)),
    "si": lambda: then(SIConv2d(2, 2, 3, padding=1, scales=(0.5, 0.75, 1, 2), reduce="mean")),
    "si stride": lambda: then(
        SIConv2d(2, 2, 4, stride=2, padding=1, scales=(0.6, 1, 1.5), reduce="mean"),
        SIConv2d(2, 2, 3, padding=1, dilation=2, scales=(0.5, 1), antialias=False, reduce="mean"),
    ),
    "si moved": lambda: then(SIConv2d(2, 2, 3, padding=9, scales=(0.5, 1), reduce="mean")),
    "pyramid": lambda: then(nn.AvgPool2d(2), PyramidConv2d(2, 2, 3, padding=1, levels=2)),
    "over a pyramid": OverPyramid,
}


def extents(model, height=64, width=80):
    """The widest stretch, rows and columns, on which a unit of the middle depends."""
    model = model.double().eval()
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.5, 1.0)
    image = torch.rand(1, 2, height, width, dtype=torch.double, requires_grad=True)
    out = model(image)
    widest = [0, 0]
    middle = [n // 2 for n in out.shape[-2:]]
    for k in range(-6, 6):  # interpolation repeats its pattern
        at = [min(max(m + k, 0), n - 1) for m, n in zip(middle, out.shape[-2:], strict=True)]
        (gradient,) = torch.autograd.grad(out[0, 0, at[0], at[1]], image, retain_graph=True)
        hit = (gradient[0].sum(0).abs() > 1e-12).nonzero()
        for a, length in enumerate((height, width)):
            first, last = int(hit[:, a].min()), int(hit[:, a].max())
            if first > 0 and last < length - 1:  # else it may see less than it would
                widest[a] = max(widest[a], last - first + 1)
    return tuple(widest)


@pytest.mark.parametrize("name", NETS)
def test_gradients_show_the_same_field(name):
    model = NETS[name]()
    rows = count(model, (2, 64, 80)).rows
    assert rows[-1].field == extents(model)
    assert rows[-1].reach == "pixels"


def test_an_si_layer_sees_more_the_smaller_its_smallest_scale():
    def field(scales):
        return count(SIConv2d(1, 1, 5, padding=2, scales=scales), (1, 64, 64)).rows[0].field[0]

    assert field((1,)) == 5
    assert field((0.5,)) > 5 / 0.5
    assert field((0.25, 0.5, 1)) == field((0.25,)) > 5 / 0.25
    assert field((1, 2)) >= 5


class Gate(nn.Module):
    def __init__(self):
        super().__init__()
        self.squeeze = nn.Conv2d(2, 2, 1)
        self.last = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        return self.last(x * self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid())


class Windows(nn.Module):
    """Attention within windows of 4 pixels, as in a Swin transformer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x):
        windows = x.view(1, 2, 2, 4, 2, 4).permute(0, 2, 4, 3, 5, 1).reshape(4, 16, 2)
        q = self.first(windows)
        x = self.last((q @ q.transpose(1, 2)).softmax(-1) @ q)
        return x.mean((0, 1))


class Written(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        canvas = x.new_zeros(1, 2, 12, 12)
        canvas[:, :, 2:10, 2:10] = x
        return self.last(canvas)


@pytest.mark.parametrize(
    ("model", "layer", "reach"),
    [
        (Gate, "last", "whole image"),
        (Windows, "first", "pixels"),
        (Windows, "last", "not known"),
        (Written, "last", "not known"),
        (lambda: nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Conv2d(2, 1, 1)), "1", "whole image"),
        (lambda: nn.Sequential(nn.Softmax(dim=2), nn.Conv2d(2, 1, 1)), "1", "pixels"),
    ],
)
def test_where_there_is_no_stretch_of_pixels(model, layer, reach):
    row = row_of(model(), (2, 8, 8), layer)
    assert row.reach == reach
    assert (row.field is None) == (reach != "pixels")


def test_one_axis_seen_as_a_whole():
    row = row_of(nn.Sequential(nn.Softmax(dim=2), nn.Conv2d(2, 1, 3)), (2, 8, 9), "1")
    assert row.field == (8, 3)


def test_class_tokens_and_positions_do_not_hide_the_patch():
    with torch.device("meta"):
        model = timm.create_model("vit_tiny_patch16_224")
    rows = {row.name: row for row in count(model).rows}
    assert rows["patch_embed.proj"].field == rows["blocks.0.attn.qkv"].field == (16, 16)
    assert rows["blocks.0.attn.proj"].reach == "whole image"


def test_covering_is_of_the_image_not_of_its_size():
    """A field as wide as the image does not cover it where no unit stands in the middle."""
    assert not count(nn.Conv2d(1, 1, 8, padding=1, stride=3), (1, 8, 8)).rows[0].covers
    assert count(nn.Conv2d(1, 1, 8), (1, 8, 8)).rows[0].covers


class TwoSizes(ScaleLayer, nn.Module):
    """A scale layer of somebody else's: the mean of a convolution over the map and over its half."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(2, 2, 3, 3))
        self.bias = nn.Parameter(torch.ones(2))

    def forward(self, x):
        def convolve(y):
            return F.conv2d(y, self.weight, self.bias, padding=1)

        window = Window.make(3, padding=1)
        return collapse(map_levels(convolve, expand(x, (1, 0.5)), window=window), "mean")

    def receptive_field(self, x, fields, axis):
        size = x.shape[axis - 2]
        plain = fields[0].slide(size, 3, 1, 1, 1)
        # Halved: unit j reads 2 j - 1 … 2 j + 2; doubled: the two units nearest to it.
        half = fields[0].gather(lambda j: range(2 * j - 1, 2 * j + 3), 1, 2, size // 2)
        half = half.slide(size // 2, 3, 1, 1, 1)
        half = half.gather(lambda j: [(j - 1) // 2, (j + 1) // 2], 2, 1, size)
        return [plain.union(half, size)]


def test_a_scale_layer_of_one_s_own_is_one_layer_to_counting_and_initialisation():
    layer = TwoSizes()
    reset_he(layer)
    assert not layer.bias.any()
    assert 0 < float(layer.weight.detach().std()) < 1
    model = then(layer)
    scale, conv = count(model, (2, 64, 80), biases=True).rows
    assert (scale.name, scale.type, scale.kind) == ("0", "TwoSizes", "scale layer")
    assert (scale.units, scale.weights, scale.parameters) == (2 * 64 * 80, 38, 38)
    assert scale.multiplications == (64 * 80 + 32 * 40) * 2 * 2 * 9
    assert scale.connections == scale.multiplications + 2 * (64 * 80 + 32 * 40)
    assert conv.field == extents(model)


def test_windows_that_hold_the_whole_map_see_it():
    """A Swin transformer's last maps are one window; its heads of earlier ones are not followed."""
    rows = {row.name: row for row in count(on_meta("swin_tiny_patch4_window7_224")).rows}
    assert rows["layers.0.blocks.0.attn.qkv"].field == (4, 4)
    assert rows["layers.0.blocks.0.attn.proj"].reach == "not known"
    assert rows["layers.3.blocks.0.attn.proj"].reach == "whole image"


def test_a_recurrent_layer_reads_row_after_row():
    class Rows(nn.Module):
        def __init__(self, backwards):
            super().__init__()
            self.cell, self.last = nn.Linear(4, 2), nn.Conv2d(2, 1, 1)
            self.backwards = backwards

        def forward(self, x):
            rows = x.flip(2).unbind(2) if self.backwards else x.unbind(2)
            state = torch.zeros(1, 8, 2)
            for row in rows:
                state = self.cell(torch.cat([row.transpose(1, 2), state], 2)).tanh()
            return self.last(state.transpose(1, 2).unsqueeze(2))

    for backwards in (False, True):
        row = row_of(Rows(backwards), (2, 5, 8), "last")
        assert row.field == (5, 1)
        assert row.covers is False


def test_lines_of_units():
    pixels = AxisField()
    assert pixels.slide(8, 3, 2, 1, 1).slide(4, 3, 2, 1, 1).size == 7
    assert pixels.slide(8, 3, 2, 1, 1).at(2) == (3, 5)
    assert pixels.fixed(4).union(pixels, 8).at(7) == (4, 7)
