"""The network of a run before its first step: built, in training mode, tried with images, in its layout."""

from __future__ import annotations

import copy
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from nearfar.data import ScaleDataModule
from nearfar.errors import InputError
from nearfar.models.initialisation import draw_weights
from nearfar.training.network import make_network
from nearfar.training.processes import ProcessInfo
from nearfar.training.specs import Recipe
from nearfar.training.sync_batchnorm import sync_batch_norms

__all__ = ["prepare_network", "smallest_batch"]


def smallest_batch(images: ScaleDataModule) -> int:
    """How many images the smallest training batch has: the last, or all alike."""
    return len(images.indices["train"]) % images.batch_size or images.batch_size


def prepare_network(
    recipe: Recipe, images: ScaleDataModule, process: ProcessInfo, network: nn.Module | None
) -> nn.Module:
    """The network to train, checked with one image, in the layout and with the norms of the run."""
    trained = copy.deepcopy(network) or _make_network(recipe, images, process)
    trained.train()
    _leave_out_auxiliary_outputs(trained)
    draw_weights(trained, recipe.fit.init)
    _check_network(trained, images, recipe)
    _check_training_mode(trained, images, recipe)
    # Channels-last is the faster layout for convolutions on CPUs and GPUs alike.
    for tensor in (*trained.parameters(), *trained.buffers()):
        # Module.to refuses filters over scale, which have five dimensions. `to`, not `contiguous`, which
        # leaves filters of one channel as they are: another layout rounds otherwise.
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
    if process.world_size > 1:
        sync_batch_norms(trained)
    return trained


def _leave_out_auxiliary_outputs(network: nn.Module) -> None:
    """Makes networks that have several outputs in training (torchvision's GoogLeNet, Inception3) return one.

    Their auxiliary classifiers stay in the network, so that checkpoints fit, but are not run.
    """
    for module in network.modules():
        if getattr(module, "aux_logits", False) is True:
            module.aux_logits = False  # type: ignore[assignment]
            for name, child in module.named_children():
                if name.lower().startswith("aux"):
                    child.forward = _no_output
                    child.requires_grad_(False)  # DDP waits for all gradients that there may be


def _no_output(_: Tensor) -> None:
    """In place of an auxiliary classifier."""


def _make_network(recipe: Recipe, images: ScaleDataModule, process: ProcessInfo) -> nn.Module:
    side = max(recipe.data.protocol.canvas_size)
    try:
        return make_network(recipe.model, len(images.class_names), images.in_chans, side=side)
    except InputError as cause:
        if not isinstance(process.environment, LightningEnvironment):
            raise
        raise InputError(
            f"{cause}. (In a training process of its own, which knows the models of nearfar and timm and "
            f"those that the script registers when it is imported)"
        ) from cause


def _check_network(network: nn.Module, images: ScaleDataModule, recipe: Recipe) -> None:
    """Refuses before training what cannot work: one image through the network."""
    image = images.images("validation", recipe.data.protocol.train_scales[0], first=1)
    try:
        with torch.inference_mode():
            output = network.eval()(image)
    except Exception as cause:
        size = "×".join(str(n) for n in image.shape[1:])
        raise InputError(
            f"model {recipe.model.name!r} cannot take images of {size}: {cause}; give it other options, "
            f"or data.protocol.canvas another size"
        ) from cause
    finally:
        network.train()
    if output.shape != (1, len(images.class_names)):
        raise InputError(
            f"model {recipe.model.name!r} answers an image with {tuple(output.shape)} where one number "
            f"for each of {len(images.class_names)} classes is needed"
        )


def _check_training_mode(network: nn.Module, images: ScaleDataModule, recipe: Recipe) -> None:
    """Two images, or as few as the smallest batch has, through a copy of the network in training mode."""
    count = min(2, smallest_batch(images))
    batch = images.images("train", recipe.data.protocol.train_scales[0], first=count)
    try:
        with isolate_rng(), torch.no_grad():
            output = copy.deepcopy(network).train()(batch)
    except Exception as cause:
        if count > 1:
            raise InputError(
                f"model {recipe.model.name!r} cannot take a batch of {count} images in training: {cause}"
            ) from cause
        # A batch norm over one value a channel has nothing to norm by.
        raise InputError(
            f"model {recipe.model.name!r} cannot be trained on a batch of 1 image, which the last of "
            f"{len(images.indices['train'])} training images in batches of {images.batch_size} is: {cause}; "
            f"choose another fit.batch_size or data.train"
        ) from cause
    if not isinstance(output, Tensor) or output.shape != (count, len(images.class_names)):
        raise InputError(
            f"model {recipe.model.name!r} returns {_described(output)} in training where one tensor of shape "
            f"{(count, len(images.class_names))} is needed; wrap it in a module that returns its main output"
        )


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"a {type(output).__name__}"
