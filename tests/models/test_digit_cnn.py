import pytest
import torch
from torch import nn

from nearfar.conversion import SILayers, convert_network
from nearfar.models import create_model
from nearfar.models.digit_cnn import PlaceHead


@pytest.mark.parametrize("size", [(4, 3), (4, 5), (6, 3)])
@pytest.mark.parametrize("training", [True, False])
def test_a_weight_for_every_place_is_a_convolution(size, training):
    torch.manual_seed(0)
    head = PlaceHead(5, (4, 3), 2).double().train(training)
    images = torch.randn(3, 5, *size, dtype=torch.double, requires_grad=True)
    weight = head.hidden[0].weight
    expected = head.hidden(images)
    found = head.maps(images)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    pull = torch.randn_like(expected)
    both = [
        torch.autograd.grad(y, (images, weight), pull, retain_graph=True) for y in (found, expected)
    ]
    torch.testing.assert_close(both[0], both[1], rtol=1e-9, atol=1e-9)


def test_training_takes_the_sum_and_everything_else_the_convolution():
    head = PlaceHead(5, (4, 3), 2)
    called = []
    head.hidden[0].register_forward_hook(lambda *_: called.append(1))
    images = torch.randn(2, 5, 4, 3)
    head(images)
    assert not called
    head.eval()(images)
    assert called == [1]


def test_a_layer_that_a_conversion_put_in_its_place_is_used():
    net = create_model("cnn_digit")
    converted, _ = convert_network(net, SILayers(layers=("head.hidden.0",), scales=(1.0, 1.4)), 28)
    assert type(converted.head.hidden[0]) is not nn.Conv2d
    called = []
    converted.head.hidden[0].register_forward_hook(lambda *_: called.append(1))
    converted.train()(torch.rand(2, 1, 28, 28))
    assert called == [1]


def test_the_digit_net_slides_over_larger_images():
    net = create_model("cnn_digit")
    assert net(torch.rand(2, 1, 36, 28)).shape == (2, 10)
    assert "head.hidden.0.weight" in net.state_dict()
