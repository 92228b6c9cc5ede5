"""``wsms``: a staged backbone at several scales in parallel."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import nn

from nearfar.conversion.plan import Change, Plan
from nearfar.conversion.spec import Conversion
from nearfar.errors import InputError
from nearfar.models import WSMSNet
from nearfar.models.timm_nets import features_of
from nearfar.models.towers import towers_of

__all__ = ["plan_wsms"]


def plan_wsms(network: nn.Module, conversion: Conversion) -> Plan:
    """The network as the first stage of a WSMS-Net; its later stages' weights are its own.

    With ``integration='none'`` the classifier goes on reading the first stage as before, and the new
    stages with weights of zero: training opens them.

    Args:
        network: staged: one of ours or timm's.
        conversion: of method ``wsms``.

    Raises:
        InputError: a network that is not staged.
    """
    classifier = _classifier(network)
    if classifier is None or not hasattr(network, "feature_info"):
        raise InputError(
            f"method 'wsms' needs a staged network of nearfar's or timm's with a dense classifier, got "
            f"{type(network).__name__}"
        )
    try:
        towers_of(copy.deepcopy(network), conversion.stages or 1)
    except InputError as cause:
        raise InputError(f"method 'wsms': {cause}") from cause
    made = f"WSMS-Net of {conversion.stages} stages at scales " + ", ".join(
        f"1/{2**s}" if s else "1" for s in range(conversion.stages or 0)
    )
    if conversion.integration != "none":
        note = "Integration and classifier are new, with random weights: fine-tune it."
    elif classifier.in_features != features_of(network)[-1]["num_chs"]:
        note = (
            "The classifier is new, with random weights, because the old one reads more than the last maps: "
            "fine-tune it."
        )
    else:
        note = "The new stages are not read until the classifier has been trained: fine-tune it."
    make = partial(_staged, conversion=conversion)
    change = Change(
        "", type(network).__name__, f"{made}, integration {conversion.integration}", make
    )
    return Plan(conversion, (change,), notes=(note,))


def _classifier(network: nn.Module) -> nn.Linear | None:
    found = network.get_classifier() if hasattr(network, "get_classifier") else None  # type: ignore[operator]
    return found if isinstance(found, nn.Linear) else None


def _staged(old: nn.Module, conversion: Conversion) -> nn.Module:
    classifier = _classifier(old)
    assert classifier is not None, "the plan has looked"
    assert conversion.stages is not None, "the spec has filled it in"
    assert conversion.integration is not None, "the spec has filled it in"
    training = old.training
    device, dtype = classifier.weight.device, classifier.weight.dtype
    made = WSMSNet(old, conversion.stages, classifier.out_features, conversion.integration)
    made.to(device=device, dtype=dtype)
    if conversion.integration == "none" and classifier.in_features == made.stage_channels[0]:
        fc = made.get_classifier()
        assert isinstance(fc, nn.Linear), "so WSMSNet makes it"
        with torch.no_grad():
            fc.weight.zero_()
            fc.weight[:, : classifier.in_features] = classifier.weight
            if classifier.bias is None:
                fc.bias.zero_()
            else:
                fc.bias.copy_(classifier.bias)
    return made.train(training)
