"""``wsms``: a staged backbone at several scales in parallel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch
from torch import nn

from nearfar.conversion.method import Change, ConversionMethod, Plan, register_method
from nearfar.conversion.replacement import copy_network
from nearfar.errors import InputError
from nearfar.models import Integration, WSMSNet
from nearfar.models.timm_nets import features_of
from nearfar.models.towers import towers_of

__all__ = ["WeightSharedStages"]


@register_method("wsms")
@dataclass(frozen=True)
class WeightSharedStages(ConversionMethod):
    """The network as the first stage of a WSMS-Net, convolution weights shared with the later stages.

    With ``integration='none'`` the classifier goes on reading the first stage as before, and the new
    stages with weights of zero: training opens them.

    Args:
        stages: how many scales, each half the one before.
        integration: ``none`` (the network answers as before until it is trained on), ``conv1x1`` or
            ``conv3x3``, which are new and need training.

    Raises:
        InputError: an unknown word, or fewer than 2 stages.
    """

    stages: int = 3
    integration: Integration = "none"

    def __post_init__(self) -> None:
        if self.integration not in get_args(Integration):
            raise InputError(
                f"integration must be one of {', '.join(get_args(Integration))}, got {self.integration!r}"
            )
        if self.stages < 2:
            raise InputError(f"stages must be at least 2, got {self.stages}")

    def plan(self, network: nn.Module, side: int | None = None) -> Plan:
        """The whole network becomes a WSMS-Net; its later stages' batch norms are its own.

        Raises:
            InputError: a network that is not staged, or whose own ``forward`` would be lost.
        """
        classifier = _classifier(network)
        if classifier is None or not hasattr(network, "feature_info"):
            raise InputError(
                f"method 'wsms' needs a staged network of nearfar's or timm's with a dense classifier, got "
                f"{type(network).__name__}"
            )
        if "forward" in vars(network):
            raise InputError(
                f"method 'wsms' takes {type(network).__name__} apart, and the forward that replaced its "
                f"class's would be lost; make it a method of a class of its own"
            )
        copied = copy_network(network)
        try:
            towers_of(copied, self.stages)
        except InputError as cause:
            raise InputError(f"method 'wsms': {cause}") from cause
        scales = ", ".join(f"1/{2**s}" if s else "1" for s in range(self.stages))
        after = (
            f"WSMS-Net of {self.stages} stages at scales {scales}, integration {self.integration}"
        )
        if self.integration != "none":
            note = "Integration and classifier are new, with random weights: fine-tune it."
        elif classifier.in_features != features_of(network)[-1]["num_chs"]:
            note = (
                "The classifier is new, with random weights, because the old one reads more than the last "
                "maps: fine-tune it."
            )
        else:
            note = (
                "The new stages are not read until the classifier has been trained: fine-tune it."
            )
        make = partial(_staged, conversion=self)
        return Plan(self, (Change("", type(network).__name__, after, make),), notes=(note,))


def _classifier(network: nn.Module) -> nn.Linear | None:
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    return classifier if isinstance(classifier, nn.Linear) else None


def _staged(old: nn.Module, conversion: WeightSharedStages) -> nn.Module:
    classifier = _classifier(old)
    assert classifier is not None, "the plan has checked it"
    training = old.training
    device, dtype = classifier.weight.device, classifier.weight.dtype
    net = WSMSNet(old, conversion.stages, classifier.out_features, conversion.integration)
    net.to(device=device, dtype=dtype)
    if conversion.integration == "none" and classifier.in_features == net.stage_channels[0]:
        fc = net.get_classifier()
        assert isinstance(fc, nn.Linear), "so WSMSNet makes it"
        with torch.no_grad():
            fc.weight.zero_()
            fc.weight[:, : classifier.in_features] = classifier.weight
            if classifier.bias is None:
                fc.bias.zero_()
            else:
                fc.bias.copy_(classifier.bias)
    return net.train(training)
