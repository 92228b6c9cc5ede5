from __future__ import annotations

import pytest
from torch import nn

from nearfar.errors import first_line
from nearfar.models.modes import evaluating


def test_every_module_has_its_own_mode_back_after_an_error_too():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2), nn.Dropout())).train()
    net[1][0].eval()
    before = [module.training for module in net.modules()]
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == before
    with pytest.raises(KeyError), evaluating(net):
        raise KeyError
    assert [module.training for module in net.modules()] == before
    with evaluating(None):
        pass


def test_the_first_line_of_an_error():
    assert first_line(RuntimeError("\nsizes differ\n  at line 3")) == "sizes differ"
    assert first_line(EOFError()) == "EOFError"
