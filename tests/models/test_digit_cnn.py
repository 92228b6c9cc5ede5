import pytest
import torch
from torch.nn import functional as F

from nearfar.models import create_model
from nearfar.models.digit_cnn import PlaceConv


@pytest.mark.parametrize("size", [(4, 3), (4, 5), (6, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_a_weight_for_every_place_is_a_convolution(size, training):
    torch.manual_seed(0)
    weigh = PlaceConv(5, 5, (4, 3), groups=5, bias=False).double().train(training)
    images = torch.randn(2, 5, *size, dtype=torch.double, requires_grad=True)
    expected = F.conv2d(images, weigh.weight, groups=5)
    found = weigh(images)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pull = torch.randn_like(expected)
    both = [
        torch.autograd.grad(y, (images, weigh.weight), pull, retain_graph=True)
        for y in (found, expected)
    ]
    torch.testing.assert_close(both[0], both[1], rtol=1e-12, atol=1e-12)


def test_training_takes_the_sum_and_everything_else_the_convolution(monkeypatch):
    torch.manual_seed(0)
    weigh = PlaceConv(5, 5, (4, 3), groups=5, bias=False)
    calls = []
    real = weigh._conv_forward
    monkeypatch.setattr(weigh, "_conv_forward", lambda *a: calls.append(1) or real(*a))
    images = torch.randn(2, 5, 4, 3)
    weigh(images)
    assert not calls
    weigh.eval()(images)
    assert calls == [1]


def test_the_digit_net_slides_over_larger_images():
    net = create_model("cnn_digit")
    assert net(torch.rand(2, 1, 36, 28)).shape == (2, 10)
    assert "head.hidden.0.weight" in net.state_dict()
