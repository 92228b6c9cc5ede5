"""Models that answer oddly, or lie in odd places."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nearfar.auditing import AuditSpec, audit
from nearfar.classifiers import InputOptions, load_classifier
from nearfar.data import LabelledImages
from nearfar.errors import InputError
from nearfar.models import create_model


def pictures(count=12):
    torch.manual_seed(0)
    images = torch.randint(256, (count, 3, 16, 16), dtype=torch.uint8)
    return LabelledImages(images, torch.zeros(count, dtype=torch.int64), ("a", "b"))


def lost_when_far(images):
    """Always class a, but nothing where most of the canvas is empty."""
    logits = torch.tensor([[3.0, 0.0]]).repeat(len(images), 1)
    logits[(images == 0).float().mean((1, 2, 3)) > 0.5] = torch.nan
    return logits


def test_no_answer_is_not_the_first_class():
    found = audit(
        lost_when_far,
        pictures(),
        AuditSpec(scales=(0.3, 1.0), flips=6),
        inputs=InputOptions(size=16),
    ).only
    assert found.curve.accuracy(1.0) == 1
    assert found.curve.accuracy(0.3) == 0


class Centred(nn.Module):
    """Subtracts the mean of everything, which has no named axes."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.conv(x - x.mean()).mean((2, 3))


def test_what_cannot_be_counted_does_not_end_an_audit():
    found = audit(
        Centred(), pictures(), AuditSpec(scales=(1.0,), flips=0), inputs=InputOptions(size=16)
    ).only
    assert found.cost is not None or "could not be counted" in " ".join(found.notes)


def test_an_empty_requirement_is_refused():
    with pytest.raises(InputError, match="a requirement is empty"):
        audit(
            lost_when_far,
            pictures(),
            AuditSpec(scales=(1.0,)),
            inputs=InputOptions(size=16),
            require=("",),
        )


def test_folders_may_hold_an_at(tmp_path):
    folder = tmp_path / "a@b"
    folder.mkdir()
    torch.manual_seed(0)
    net = create_model("resnet20_cifar", num_classes=2)
    torch.save(net.state_dict(), folder / "w.pth")
    opened = load_classifier(f"resnet20_cifar@{folder / 'w.pth'}")
    assert opened.input_spec.num_classes == 2
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(Centred(), (torch.rand(2, 3, 8, 8),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "net.pt2")
    assert load_classifier(folder / "net.pt2").input_spec.protocol.canvas == 8
