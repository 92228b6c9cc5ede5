"""A small file cannot ask for a large network."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from nearfar.errors import InputError
from nearfar.training.construction import construction_limit


def test_networks_of_the_file_s_size_are_built_as_without_a_limit():
    for name in ("resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"):
        torch.manual_seed(0)
        network = timm.create_model(name)
        state = network.state_dict()
        torch.manual_seed(0)
        with construction_limit(sum(t.numel() for t in state.values()), len(state)):
            limited = timm.create_model(name)
        assert all(limited.state_dict()[key].equal(tensor) for key, tensor in state.items())


def test_a_tensor_or_a_number_of_them_beyond_it_is_refused_before_it_is_made():
    with (
        pytest.raises(InputError, match=r"16×1000000000×3×3 is asked for"),
        construction_limit(1000, 2),
    ):
        nn.Conv2d(10**9, 16, 3)
    layers = []

    def endless():
        while True:
            layers.append(nn.Linear(1, 1))

    with construction_limit(1000, 2), pytest.raises(InputError, match="far larger than the file's"):
        endless()
    assert len(layers) < 5_000
