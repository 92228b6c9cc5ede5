"""The lecture's sizes of convolutional nets, and the convention that reproduces each."""

from __future__ import annotations

import torch

from nearfar import count
from nearfar.models import create_model


def counted(name, size, biases=False, **options):
    return count(create_model(name, **options), size, biases=biases)


def test_the_table_of_lenet5():
    """Units without the image, connections and weights without biases, C3 reading all of S2."""
    table = {
        "C1": (4704, 117_600, 150),
        "S2": (1176, 4704, 0),
        "C3": (1600, 240_000, 2400),
        "S4": (400, 1600, 0),
        "F5": (120, 48_000, 48_000),
        "F6": (84, 10_080, 10_080),
        "output": (10, 840, 840),
    }
    rows = counted("lenet5", (1, 28, 28)).rows
    assert [(r.units, r.connections, r.weights) for r in rows] == list(table.values())


def test_lenet_1989():
    """1,256 units, the 256 pixels among them; 9,760 parameters; 64,660 connections, biases among them."""
    found = counted("lenet1989", (1, 16, 16), biases=True)
    assert found.units + 16 * 16 == 1256
    assert found.parameters == 9760
    # A bias for every unit of H1 and H2 is not a layer's bias: they are counted here.
    assert found.connections + 12 * 8 * 8 + 12 * 4 * 4 == 64_660


def test_lenet_1998():
    """8,084 units: neither image nor output; 60,000 parameters: without the output, which is not learnt."""
    found = counted("lenet5", (1, 28, 28), biases=True, as_printed=True)
    assert found.units - 10 == 8084
    (output,) = (r for r in found.rows if r.name == "head.fc")
    assert output.parameters == 850
    assert found.parameters - output.parameters == 60_000
    by_kind = [r.connections for r in found.rows if r.kind in ("convolution", "dense")]
    # LeCun et al. 1998: C1 122,304, C3 151,600, C5 48,120, F6 10,164.
    assert by_kind == [122_304, 151_600, 48_120, 10_164, 850]
    # All in all the paper counts 340,908 (a coefficient and a bias for each subsampling unit, no bias at
    # the output). The lecture prints 344,000, which no convention we know of gives.
    subsampling = 5 * (1176 + 400)
    assert sum(by_kind) - 10 + subsampling == 340_908


def test_alexnet():
    """658,000 units: of weighted layers, without image and output; 652 million connections: convolutions
    alone, layer 1 with the 253,440 units that the paper prints for it."""
    with torch.device("meta"):
        model = create_model("alexnet_two_tower")
    rows = [r for r in count(model, (3, 224, 224)).rows if r.kind in ("convolution", "dense")]
    units = sum(r.units for r in rows)
    assert units - 1000 == 658_272
    assert sum(r.parameters for r in rows) == 60_965_224
    convolutions = [r for r in rows if r.name.startswith("stages.")]
    first = sum(r.units for r in convolutions[:2])
    assert first == 290_400  # 55 × 55 × 96
    connections = sum(r.connections for r in convolutions)
    printed = connections - (first - 253_440) * 11 * 11 * 3
    assert round(printed / 1e6) == 652
    # The paper's figure 2: 253,440–186,624–64,896–64,896–43,264–4096–4096–1000.
    per_layer = [rows[i].units + rows[i + 1].units for i in range(2, 14, 2)]
    assert per_layer == [186_624, 64_896, 64_896, 43_264, 4096, 4096]


def test_a_stack_of_three_by_three_sees_what_seven_by_seven_sees():
    """Lecture notes §2.3: three 3×3 layers have 3 · 3² C² weights, one 7×7 layer 7² C²."""
    layers = [torch.nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(3)]
    stack = count(torch.nn.Sequential(*layers), (8, 20, 20))
    one = count(torch.nn.Conv2d(8, 8, 7, padding=3, bias=False), (8, 20, 20))
    assert stack.rows[-1].field == one.rows[0].field == (7, 7)
    assert (stack.weights, one.weights) == (3 * 9 * 64, 49 * 64)
