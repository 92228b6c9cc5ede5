"""``nearfar wrap`` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nearfar.auditing import ImageSelection
from nearfar.classifiers import Answers, InputOptions
from nearfar.cli.convert import show_conversion
from nearfar.cli.display import shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.conversion.ensemble import Window
from nearfar.deploy import WrapSpec
from nearfar.deploy import wrap as wrap_model

EXAMPLES = """\
  nearfar wrap runs/digits_plain/weights.safetensors --budget 1.5
  nearfar wrap resnet18@pretrained --data photos --budget 2 --out runs/photos_wrapped
  nearfar wrap resnet18@weights.pth --data unlabelled --root photos
  nearfar wrap resnet20_cifar@weights.th --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --data cifar10
"""


def wrap(
    model: str,
    *,
    data: str = "",
    budget: float = 2.0,
    sizes: tuple[float, ...] = WrapSpec.sizes,
    levels: tuple[float, ...] = WrapSpec.levels,
    most: int = WrapSpec.most,
    cascade: bool = WrapSpec.cascade,
    window: Window | None = None,
    choose_on: int = WrapSpec.choose_on,
    check: int = WrapSpec.check,
    max_loss: float = WrapSpec.max_loss,
    root: Path | None = None,
    images: int = 0,
    max_skipped: float | None = None,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    out: Path = Path("runs/wrap"),
) -> dict[str, Any]:
    """Puts a trained classifier over several sizes of its images, without training it.

    Which sizes, how their answers are combined, at what temperature, and whether as a cascade that looks
    again only where it is unsure, is chosen by cross-validation on a few hundred images, within a budget of
    multiplications. The result is held against the network on other images, and written as a checkpoint. One
    that is worse at the images' own size by more than max_loss is written, but the command says so and ends
    with exit status 1.

    Args:
        model: a checkpoint, a name with weights (``resnet18@FILE``, ``resnet18@pretrained``), or a
            ``package.module:network``.
        data: a dataset's name, a folder with a sub-folder a class, or ``unlabelled`` with root; default: the
            images that the checkpoint's training put aside.
        budget: how many times the network's own multiplications an image may cost in the mean.
        sizes: at which sizes the things on the images are to be known, as factors; all count alike.
        levels: at which scales the network may meet an image.
        most: how many of these vote at most.
        cascade: whether it may look again only where it is unsure.
        window: how much of an image a level shows: ``image``, ``all`` or ``fixed``. Default: ``image``, or
            ``fixed`` where the network takes images of one size.
        choose_on: on how many images levels are chosen, at most half of all.
        check: on how many others the result is compared with the network, at most.
        max_loss: how much accuracy (without labels: agreement with the network) at scale 1 may be lost, as a
            fraction.
        root: folder that holds the dataset, where its name does not say.
        images: how many of the dataset's test images are used in all; 0 takes all.
        max_skipped: which share of images may be left out because they cannot be read; default: 0.01.
        mean, std: of each channel, of values from 0 to 1: what the network's input is normalised by.
        size: side of the network's images, in pixels.
        num_classes: how many classes the network tells apart.
        answers: logits or probabilities: what the network's numbers are, where a few images do not show it.
        output: name of the output with the classes' numbers, where the network has several.
        crop_pct: which share of an image's side the canvas shows; 1: all of it. Default: the model's own.
        out: folder to write.

    Returns:
        Keyword arguments of :func:`nearfar.wrap`.
    """
    return {
        "model": model,
        "images": data,
        "budget": budget,
        "spec": WrapSpec(sizes, levels, most, cascade, window, choose_on, check, max_loss),
        "selection": ImageSelection(root, images, max_skipped),
        "inputs": InputOptions(mean, std, size, num_classes, answers, output, crop_pct),
        "out": out,
    }


def run(arguments: list[str]) -> int:
    """Parses, runs, shows; 1 where the result is not accepted."""
    call = wrap(**parse_call(wrap, arguments, EXAMPLES, positional=True))
    with shown_progress() as progress:
        result = wrap_model(**call, progress=progress)
    show_conversion(result)
    return 1 if result.accepted is False else 0
