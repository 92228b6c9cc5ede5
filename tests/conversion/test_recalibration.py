"""New statistics for batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.conversion import recalibrate
from nearfar.errors import InputError


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2),
        nn.Dropout(0.9),
        nn.Conv2d(2, 2, 1),
        nn.BatchNorm2d(2),
    )


def test_statistics_are_the_mean_over_the_batches():
    model = net().train()
    model[2].eval()
    batches = [torch.randn(4, 1, 6, 6) + i for i in range(3)]
    assert recalibrate(model, batches) == 2
    maps = [model[0](b) for b in batches]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    var = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)
    assert model[1].momentum == 0.1
    assert [m.training for m in model] == [True, True, False, True, True]
    # Dropout did not drop: the second norm saw what eval mode gives it, normed by the batch.
    normed = [
        nn.functional.batch_norm(m, None, None, model[1].weight, model[1].bias, True) for m in maps
    ]
    means = torch.stack([model[3](n).mean((0, 2, 3)) for n in normed]).mean(0)
    torch.testing.assert_close(model[4].running_mean, means, rtol=1e-4, atol=1e-5)


def test_a_fault_leaves_everything_as_it_was():
    model = net().eval()
    model[1].running_mean.fill_(7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for batches, message in (
        ([], "at least one batch"),
        ([torch.randn(4, 1, 6, 6), torch.randn(1, 1, 6, 6)], "at least 2 images, got 1"),
    ):
        with pytest.raises(InputError, match=message):
            recalibrate(model, batches)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
        assert not model[1].training
        assert model[1].momentum == 0.1


def test_a_network_without_batch_norms_needs_none():
    assert recalibrate(nn.Conv2d(1, 1, 1), []) == 0
