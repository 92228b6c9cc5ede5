"""A small net with everything in it that could spoil a run that is taken up: dropout and batch norm."""

from __future__ import annotations

from typing import Any

from timm.models import register_model
from torch import nn

from nearfar.models.cnn_small import SmallCNN
from nearfar.training import train


# timm's registry, not nearfar's, whose nets other tests list.
@register_model
def dropping_cnn(num_classes: int = 10, in_chans: int = 3, **_: Any) -> SmallCNN:
    """The quickstart's plain net, with batch norm, and dropout before its classifier."""
    net = SmallCNN(num_classes, in_chans, channels=(8, 16), norm=True)
    net.head.drop = nn.Dropout(0.3)
    return net


def train_it(*arguments: Any) -> None:
    """Trains in a process of its own, which by this name finds the net registered."""
    train(*arguments)
