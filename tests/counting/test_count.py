from __future__ import annotations

import csv
import io
import json

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nearfar
from nearfar.counting import count
from nearfar.errors import InputError
from nearfar.layers import ScaleConv2d, ScalePool
from nearfar.models import SmallCNN, WSMSNet, create_model
from nearfar.pyramid import expand
from nearfar.reference import reference_only


def lenet():
    """LeNet-5 as the lecture's "Size of a conv net" has it: C3 fully connected."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2, bias=False), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)),
    )


def on_meta(make, *arguments, **options):
    with torch.device("meta"):
        return make(*arguments, **options)


def test_the_lecture_s_table_to_the_digit():
    table = count(lenet(), (1, 28, 28))
    assert [(row.units, row.connections, row.weights) for row in table.rows] == [
        (4704, 117_600, 150),
        (1176, 4704, 0),
        (1600, 240_000, 2400),
        (400, 1600, 0),
        (120, 48_000, 48_000),
        (84, 10_080, 10_080),
        (10, 840, 840),
    ]
    assert (table.units, table.connections, table.weights) == (8094, 422_824, 61_470)
    assert table.parameters == 61_470 + 16 + 120 + 84 + 10
    assert table.multiplications == 416_520
    assert table.memory == 4 * 8094
    assert [row.kind for row in table.rows] == [
        *("convolution", "pool", "convolution", "pool", "dense", "dense", "dense")
    ]
    assert table.rows[0].output == (6, 28, 28)


def test_biases_as_lecun_counts_them():
    net = lenet()
    net[0] = nn.Conv2d(1, 6, 5, padding=2)
    first, second, third, *_, last = count(net, (1, 28, 28), biases=True).rows
    assert (first.connections, first.weights) == (122_304, 156)
    assert (second.connections, second.weights) == (4704, 0)
    assert (third.connections, third.weights) == (1600 * 151, 2416)
    assert (last.connections, last.weights) == (850, 850)
    # A bias that is not there is not counted.
    assert count(lenet(), (1, 28, 28), biases=True).rows[0].connections == 117_600


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: timm.create_model("resnet18"), (3, 64, 64)),
        (lambda: timm.create_model("mobilenetv3_small_100"), (3, 64, 64)),
        (lambda: timm.create_model("vit_tiny_patch16_224"), (3, 224, 224)),
        (lambda: timm.create_model("nf_resnet26"), (3, 64, 64)),
        (lambda: create_model("si_cnn_small", in_chans=1), (1, 28, 28)),
        (lambda: create_model("pyramid_cnn_small", in_chans=1), (1, 28, 28)),
        (lambda: create_model("wsms_cnn_small", in_chans=1), (1, 28, 28)),
        (lambda: create_model("hierarchical_cnn_small", in_chans=1), (1, 28, 28)),
        (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 7, 5)),
        (lambda: nn.Conv2d(4, 6, 3, padding="same", dilation=2, groups=2), (4, 7, 5)),
    ],
)
def test_multiplications_and_parameters_are_torch_s(make, size):
    model = make().eval()
    table = count(model, size)
    counter = FlopCounterMode(display=False)
    # Some releases of torch do not count the fused attention of CPUs.
    attention = sdpa_kernel(SDPBackend.MATH)
    with torch.inference_mode(), attention, counter, reference_only():
        model(torch.zeros(1, *size))
    assert table.multiplications == counter.get_total_flops() // 2 > 0
    assert table.parameters == sum(p.numel() for p in model.parameters())
    assert on_meta(make).training
    assert count(on_meta(make), size) == table


def test_resizing_by_matrices_is_no_multiplication():
    """A strided SI-layer reads its levels through matrices; only its convolutions count."""
    layer = nearfar.SIConv2d(1, 2, 3, stride=2, padding=1, scales=(0.5, 1))
    assert count(layer, (1, 8, 8)).multiplications == (4 * 4 + 2 * 2) * 9 * 2


def test_shared_weights_are_counted_once_and_named():
    net = WSMSNet(SmallCNN(num_classes=0, in_chans=1, norm=True), stages=2)
    table = count(net, (1, 28, 28))
    rows = {row.name: row for row in table.rows}
    first, again = rows["towers.0.1.0"], rows["towers.1.1.0"]
    assert (first.weights, first.parameters, first.shared_with) == (400, 400, None)
    assert (again.weights, again.parameters, again.shared_with) == (0, 0, "towers.0.1.0")
    assert (first.units, again.units) == (16 * 28 * 28, 16 * 14 * 14)
    assert rows["towers.1.1.1"].parameters == 32  # norms are each tower's own
    assert table.parameters == sum(p.numel() for p in net.parameters())
    alone = WSMSNet(SmallCNN(num_classes=0, in_chans=1), stages=2, share_weights=False)
    assert all(row.shared_with is None for row in count(alone, (1, 28, 28)).rows)


def test_one_storage_under_two_parameters_is_shared_too():
    net = nn.Sequential(nn.Conv2d(2, 2, 3, bias=False), nn.Conv2d(2, 2, 3, bias=False))
    net[1].weight = nn.Parameter(net[0].weight.detach())
    table = count(net, (2, 9, 9))
    assert table.parameters == table.weights == 36
    assert table.rows[1].shared_with == "0"


def test_a_layer_called_often_is_one_row():
    rows = {
        row.name: row for row in count(create_model("hierarchical_cnn_small"), (3, 28, 28)).rows
    }
    conv = rows["net.stages.0.0"]
    assert conv.calls == 5
    assert conv.units == 16 * sum(n * n for n in (14, 21, 28, 42, 56))
    assert (conv.weights, conv.shared_with, conv.output) == (1200, None, (16, 14, 14))


class Functional(nn.Module):
    """As many write them: pools, a norm and a spare layer without modules of their own."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.norm = nn.BatchNorm2d(4)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 2)
        x = F.max_pool2d(F.relu(self.norm(self.second(x)) * self.scale), (2, 1))
        return x.mean((2, 3))


def test_what_has_no_module_or_no_output():
    table = count(Functional(), (1, 8, 8))
    rows = {row.name: row for row in table.rows}
    assert list(rows) == [
        *("first", "max_pool2d", "second", "norm", "max_pool2d#2", "mean", "Functional", "unused")
    ]
    assert (rows["max_pool2d"].units, rows["max_pool2d"].connections) == (64, 256)
    assert (rows["max_pool2d#2"].units, rows["max_pool2d#2"].connections) == (32, 64)
    assert (rows["mean"].units, rows["mean"].connections) == (4, 32)
    norm = rows["norm"]
    assert (norm.kind, norm.units, norm.connections, norm.parameters) == ("other", 0, 0, 8)
    assert (norm.weights, norm.memory) == (0, 4 * 64)
    assert (rows["Functional"].parameters, rows["unused"].parameters) == (4, 12)
    assert (rows["unused"].calls, rows["unused"].reach) == (0, "none")


def test_uneven_adaptive_pools_read_what_their_windows_hold():
    row = count(nn.AdaptiveAvgPool2d((3, 2)), (2, 7, 4)).rows[0]
    assert (row.units, row.connections) == (12, 2 * (3 + 3 + 3) * (2 + 2))
    assert count(nn.AdaptiveAvgPool2d(1), (2, 1, 1)).rows == ()


def test_attention_s_fast_path_hides_nothing():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attend = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            x = x.flatten(2).transpose(1, 2)
            return self.attend(x, x, x, need_weights=False)[0]

    net = Net()
    table = count(net, (8, 3, 5))
    assert table.multiplications == 15 * 8 * 24 + 2 * 15 * 15 * 8 + 15 * 8 * 8
    assert table.parameters == sum(p.numel() for p in net.parameters())
    assert table.weights == 8 * 24 + 8 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_weights_behind_parametrisations():
    layer = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3))
    (row,) = count(layer, (2, 5, 5)).rows
    assert (row.weights, row.parameters) == (72, 72 + 4 + 4)


def test_layers_over_pyramids():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = ScaleConv2d(1, 2, 3, padding=1, scale_extent=2)
            self.pool = ScalePool()

        def forward(self, x):
            return self.pool(self.conv(expand(x, (1, 0.5))))

    conv, pool = count(Net(), (1, 8, 8)).rows
    assert (conv.units, conv.weights, conv.parameters) == (2 * (64 + 16), 36, 38)
    assert conv.connections == conv.multiplications == 2 * 9 * (64 + 64 + 16)
    assert (pool.kind, pool.units, pool.connections) == ("pool", 128, 256)


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten())
    net[1].eval()
    calls = []
    net[0].register_forward_hook(lambda *_: calls.append(1))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
    for size in ((1, 5, 5), (1, 1, 1)):
        if size == (1, 5, 5):
            count(net, size)
        else:
            with pytest.raises(InputError, match="does not take an image of 1×1×1"):
                count(net, size)
        assert [m.training for m in net] == [True, False, True, True]
        assert hooks == [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in net.modules()]
        assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert len(calls) == 1


def test_the_random_state_stays():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.rand(1)

    state = torch.get_rng_state()
    count(Noisy(), (1, 2, 2))
    assert torch.equal(torch.get_rng_state(), state)


def test_it_counts_in_the_network_s_own_numbers():
    assert count(nn.Conv2d(1, 1, 1).double(), (1, 4, 4)).memory == 8 * 16


@pytest.mark.parametrize(
    "size", [(3, 224), (3, 0, 5), (1.0, 2, 2), "3x224x224", (True, 4, 4), 224, (1, 2, 3, 4)]
)
def test_sizes_that_are_none(size):
    with pytest.raises(
        InputError, match=r"three whole numbers of at least 1 such as \(3, 224, 224\)"
    ):
        count(nn.Identity(), size)


def test_other_refusals():
    with pytest.raises(InputError, match="Conv2d does not take an image of 1×4×4.*expected input"):
        count(nn.Conv2d(3, 1, 1), (1, 4, 4))
    lazy = nn.LazyConv2d(3, 1)
    with pytest.raises(InputError, match="weight of the network has no shape yet; run the network"):
        count(lazy, (1, 4, 4))


def test_json_and_csv_say_the_same():
    table = count(lenet(), (1, 28, 28))
    again = json.loads(table.as_json())
    assert again == table.as_dict()
    assert again["schema"] == "nearfar.count/1"
    assert again["total"]["connections"] == 422_824
    assert again["rows"][0]["field"] == [5, 5]
    *rows, total = csv.DictReader(io.StringIO(table.as_csv()))
    assert len(rows) == 7
    for line, row in zip(rows, again["rows"], strict=True):
        for name in ("units", "connections", "weights", "parameters", "multiplications", "memory"):
            assert int(line[name]) == row[name]
        assert [line["field_height"], line["field_width"]] == (
            ["", ""] if row["field"] is None else [str(n) for n in row["field"]]
        )
        assert line["output"] == "×".join(map(str, row["output"]))
    assert (total["name"], total["units"]) == ("total", "8094")


def test_it_is_a_public_name():
    assert nearfar.count is count
