"""The cascade against its definition written in plain loops, and what it saves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nearfar
from nearfar.conversion import PyramidEnsemble, convert_network
from nearfar.errors import InputError
from nearfar.models import CascadeNet, HierarchicalNet, SmallCNN
from nearfar.reference import reference_only

SCALES = (0.5, 1.0, 1.5)


@pytest.fixture
def net():
    torch.manual_seed(0)
    return SmallCNN(num_classes=4, in_chans=1).eval()


def level(net, image, scale, temperature):
    """A level by torch's own resizing, the middle of a larger one; log-probabilities of one image."""
    side = int(scale * image.shape[-1] + 0.5)
    if scale != 1:
        image = nn.functional.interpolate(
            image, size=(side, side), mode="bilinear", antialias=scale < 1
        )
    if scale > 1:
        first = (side - 28) // 2
        image = image[..., first : first + 28, first : first + 28]
    return (net(image) / temperature).log_softmax(1)[0]


def by_hand(net, image, scales, how, temperature, threshold):
    """Answer and number of looks for one image, ``[1, C, H, W]``."""
    levels = []
    for scale in scales:
        levels.append(level(net, image, scale, temperature))
        stacked = torch.stack(levels)
        vote = {
            "logsumexp": lambda s: s.exp().mean(0).log(),
            "mean": lambda s: s.mean(0).log_softmax(0),
            "max": lambda s: s.amax(0).log_softmax(0),
        }[how](stacked)
        if vote.exp().max() >= threshold:
            break
    return vote, len(levels)


@pytest.mark.parametrize("how", ["logsumexp", "mean", "max"])
def test_each_image_is_looked_at_until_it_is_sure(how):
    draw = torch.Generator().manual_seed(1)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16, 4)).eval()
    nn.init.normal_(net[2].weight, std=3, generator=draw)
    images = nn.functional.interpolate(torch.rand(80, 1, 4, 4, generator=draw), size=(28, 28))
    scales, settings = (1.0, 1.5, 2.0, 0.5), (how, 1.3, 0.8)
    with torch.no_grad():
        expected = [by_hand(net, image[None], scales, *settings) for image in images]
        cascade = CascadeNet(net, scales, how, "image", *settings[1:]).eval()
        answers = cascade(images)
        with reference_only():
            definition = cascade(images)
    assert len({looks for _, looks in expected}) >= 3, "a weak test"
    torch.testing.assert_close(answers, torch.stack([vote for vote, _ in expected]))
    torch.testing.assert_close(answers, definition)


def test_the_net_runs_where_it_is_needed_and_nowhere_else(net):
    images = torch.rand(24, 1, 28, 28)
    sizes = []
    net.register_forward_hook(lambda _, inputs, __: sizes.append(tuple(inputs[0].shape[::3])))
    with torch.no_grad():
        CascadeNet(net, SCALES, threshold=0.0).eval()(images)
        assert sizes == [(24, 14)]
        sizes.clear()
        CascadeNet(net, SCALES, threshold=1.0).eval()(images)
        assert sizes == [(24, 14), (24, 28), (24, 28)]
        sizes.clear()
        first = CascadeNet(net, SCALES).eval().look(images, 0.5).exp().amax(1)
        sizes.clear()
        CascadeNet(net, SCALES, threshold=float(first.median())).eval()(images)
    assert sizes[0] == (24, 14)
    assert sizes[1] == (int((first < first.median()).sum()), 28)


def test_a_cascade_that_is_never_sure_votes_as_the_ensemble(net):
    images = torch.rand(5, 1, 28, 28)
    whole = HierarchicalNet(net, SCALES, "mean", "image", 2.0).eval()
    cascade = CascadeNet(net, SCALES, "mean", "image", 2.0, 1.0).eval()
    torch.testing.assert_close(cascade(images), whole(images).log_softmax(1))
    cascade.train()
    torch.testing.assert_close(cascade(images), whole.train()(images))


def test_looks_of_one_size_are_one_look(net):
    images = torch.rand(6, 1, 28, 28)
    many = CascadeNet(net, (1.0, 0.99, 1.01, 0.5), threshold=1.0).eval()
    few = CascadeNet(net, (1.0, 0.5), threshold=1.0).eval()
    assert many.looks(images) == (1.0, 0.5)
    torch.testing.assert_close(many(images), few(images))


def test_nothing_and_not_a_number_are_answered(net):
    cascade = CascadeNet(net, SCALES).eval()
    assert cascade(torch.rand(0, 1, 28, 28)).shape == (0, 4)
    answers = cascade(torch.stack([torch.full((1, 28, 28), torch.nan), torch.rand(1, 28, 28)]))
    assert answers[0].isnan().all()
    assert answers[1].isfinite().all()


def test_a_cascade_has_gradients(net):
    net = net.double()
    cascade = CascadeNet(net, (1.0, 0.5), threshold=0.3).eval()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(cascade, images)


def test_it_is_counted_with_all_its_looks(net):
    cascade = CascadeNet(net, (1.0, 0.5), threshold=0.0).eval()
    whole = HierarchicalNet(net, (1.0, 0.5), window="image")
    size = (1, 28, 28)
    assert (
        nearfar.count(cascade, size).multiplications == nearfar.count(whole, size).multiplications
    )


def test_the_conversion_makes_it(net):
    images = torch.rand(4, 1, 28, 28)
    method = PyramidEnsemble((1.0, 0.5), "max", temperature=1.5, threshold=0.6)
    twin, plan = convert_network(net, method, 28)
    assert isinstance(twin, CascadeNet)
    assert "at temperature 1.5, one after the other until it is 60 % sure" in plan.changes[0].after
    direct = CascadeNet(net, (1.0, 0.5), "max", "image", 1.5, 0.6).eval()
    torch.testing.assert_close(twin(images), direct(images))
    plain, _ = convert_network(net, PyramidEnsemble((1.0, 0.5), temperature=1.5), 28)
    assert type(plain) is HierarchicalNet
    assert plain.temperature == 1.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a number above 0, got 0.0"),
        ({"threshold": 1.5}, "threshold is a probability from 0 to 1, got 1.5"),
        ({"threshold": 0.5, "reduction": "learned"}, "got reduction='learned'"),
    ],
)
def test_what_it_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        PyramidEnsemble(**settings)
