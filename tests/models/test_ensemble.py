from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar import Ensemble, InputError, create_model


class Voter(nn.Linear):
    """Answers with its own logits; nothing in it depends on the batch."""

    num_classes = 3


def voters(count=3):
    torch.manual_seed(0)
    return [Voter(4, 3) for _ in range(count)]


def test_the_answer_is_the_log_of_the_mean_probability():
    members = voters()
    ensemble, x = Ensemble(members).eval(), torch.randn(5, 4)
    mean = torch.stack([member(x).softmax(1) for member in members]).mean(0)
    torch.testing.assert_close(ensemble(x), mean.log())
    torch.testing.assert_close(ensemble(x).exp().sum(1), torch.ones(5))


@pytest.mark.parametrize("batch", [6, 7, 8, 12])
def test_in_training_the_members_take_turns(batch):
    members = voters()
    ensemble, x = Ensemble(members).train(), torch.randn(batch, 4)
    expected = torch.stack([members[i % 3](x[i]) for i in range(batch)])
    torch.testing.assert_close(ensemble(x), expected)


def test_a_member_learns_from_its_own_images_alone():
    members = voters(2)
    x, y = torch.randn(8, 4), torch.randint(3, (8,))
    nn.functional.cross_entropy(Ensemble(members).train()(x), y, reduction="sum").backward()
    found = [member.weight.grad.clone() for member in members]
    for m, member in enumerate(members):
        member.zero_grad()
        nn.functional.cross_entropy(member(x[m::2]), y[m::2], reduction="sum").backward()
        torch.testing.assert_close(found[m], member.weight.grad)


def test_a_small_training_batch_is_answered_by_all():
    members = voters()
    x = torch.randn(5, 4)
    torch.testing.assert_close(
        Ensemble(members).train()(x), Ensemble(members).eval()(x), rtol=0, atol=0
    )


def test_members_begin_with_different_weights_and_stay_within_the_record_s_bound():
    ensemble = create_model("ensemble_zoom_digit")
    first, second, third = (m.net.stages[0][0].weight for m in ensemble.members)
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    one = sum(p.numel() for p in create_model("zoom_digit").parameters())
    assert sum(p.numel() for p in ensemble.parameters()) == 3 * one <= 500_000


def test_what_makes_no_committee():
    with pytest.raises(InputError, match="at least one member"):
        Ensemble([])
    with pytest.raises(InputError, match="members must be at least 1, got 0"):
        create_model("ensemble_zoom_digit", members=0)
    odd = Voter(4, 3)
    odd.num_classes = 5
    with pytest.raises(InputError, match="same classes, got num_classes"):
        Ensemble([*voters(1), odd])
