"""The weights and sample images that come with the package: ``python -m benchmarks.pretrained STEP``.

``samples`` writes the sample images, ``pack`` packs trained checkpoints (numbers in half precision) with
their cards, ``figures`` audits what is packed on the data sets' own test images and writes
results/pretrained.json. The checkpoints come from

    nearfar train --config recipes/pretrained/NAME.yaml --out runs/pretrained/NAME

for each recipe there; ``pack`` reads them below ``--runs``. Needs the data sets below ``$NEARFAR_DATA``.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from nearfar.atomic import write_atomically
from nearfar.auditing import AuditSpec, ImageSelection, audit
from nearfar.data import Normalised, load_source
from nearfar.deploy.model_card import model_card
from nearfar.pretrained import list_pretrained, pretrained_file
from nearfar.provenance import machine, today
from nearfar.training import load_checkpoint
from nearfar.training.checkpoint import save_weights, unique_state
from nearfar.version import versions

ROOT = Path(__file__).parent.parent
TEST_IMAGES = 2000
SCALES = (0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
PACKAGE = ROOT / "src" / "nearfar" / "pretrained"
#: Of each sample set: the source, the fold, images a class, the files' form.
SAMPLES = {
    "cifar10": ("cifar10", 10, "PNG"),
    "digits": ("mnist_scale", 10, "PNG"),
    "tiny": ("tiny_imagenet", 1, "JPEG"),
}


@dataclasses.dataclass(frozen=True)
class Packed:
    """One network that comes with the package.

    Attributes:
        run: the recipe it was trained by, and the folder's name.
        samples: the images of the package that it knows.
        licence: what the training images are, and what that means for the weights.
        levels: the scales at which it looks at an image with the trained weights, one vote each; ``()`` for
            a network as it was trained.
    """

    run: str
    samples: str
    licence: str
    levels: tuple[float, ...] = ()


_CIFAR = (
    "Trained on a JPEG copy of CIFAR-10 (A. Krizhevsky 2009; collected from the web for research): each "
    "image was compressed with loss, which costs nets some points, so compare figures on the copy with each "
    "other."
)
_MNIST = "Trained on MNIST-Scale, fold 0, made of MNIST (Y. LeCun, C. Cortes)."
_TINY = (
    "Trained on 100 classes of Tiny ImageNet (Stanford CS231n; images of ImageNet, for non-commercial "
    "research)."
)
PACKED = {
    "cnn_mnist_scale": Packed("cnn_mnist_scale", "digits", _MNIST),
    "si_mnist_scale": Packed("si_mnist_scale", "digits", _MNIST),
    "zoom_digit": Packed("zoom_mnist_scale", "digits", _MNIST),
    "resnet20_cifar": Packed("pretrained_resnet20_cifar", "cifar10", _CIFAR),
    "hierarchical_resnet20_cifar": Packed(
        "pretrained_scaled_resnet20_cifar",
        "cifar10",
        _CIFAR,
        # The best mean over 0.5 to 2 times the size on the 1,000 validation images, of all sets of up to
        # four of nine levels: 76.2 %, at 2.7 times the multiplications. The network alone has 75.8 % there:
        # having been trained at these sizes, it gains little by looking again.
        levels=(0.84, 1.0, 2.0),
    ),
    "cnn_tiny": Packed("pretrained_cnn_tiny", "tiny", _TINY),
}


def write_samples() -> None:
    """Images of the official test parts, the first of each class in the data's own order."""
    for name, (source, count, form) in SAMPLES.items():
        dataset = load_source(source)
        folder = PACKAGE / "samples" / name
        start = dataset.test_from or 0
        for label, class_name in enumerate(dataset.class_names):
            which = (dataset.labels[start:] == label).nonzero().flatten()[:count] + start
            for i, pixels in enumerate(dataset.images[which]):
                image = Image.fromarray(as_bytes(pixels))
                content = io.BytesIO()
                image.save(content, form, **({"quality": 95} if form == "JPEG" else {}))
                suffix = {"JPEG": "jpg", "PNG": "png"}[form]
                path = folder / class_name / f"{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content.getvalue())
        write_atomically(folder / "classes.txt", "\n".join(dataset.class_names) + "\n")


def as_bytes(pixels: Tensor) -> Any:
    """``[C, h, w]``, uint8 or from 0 to 1 → ``[h, w]`` or ``[h, w, 3]``, uint8, for Pillow."""
    if pixels.is_floating_point():
        pixels = (pixels * 255).round().to(torch.uint8)
    return (pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)).numpy()


def pack(name: str, runs: Path) -> None:
    """A trained checkpoint as a small one: matrices and filters in half precision, norms and biases whole."""
    packed = PACKED[name]
    checkpoint = load_checkpoint(runs / packed.run / "weights.safetensors")
    model: nn.Module = checkpoint.model
    bare = model.network if isinstance(model, Normalised) else model
    prefix = "net." if packed.levels else ""
    tensors = {
        prefix + key: tensor.half() if tensor.dim() > 1 else tensor
        for key, tensor in unique_state(bare).items()
    }
    recipe = checkpoint.recipe.as_dict()
    record = {**checkpoint.record, "recipe": recipe}
    if packed.levels:
        record["trained_options"] = recipe["model"]["options"]
        for figure in ("validation_accuracy", "validation_loss"):  # of the net at one level
            record.pop(figure, None)
        options = {"scales": list(packed.levels), "window": "image"}
        recipe["model"] = {**recipe["model"], "name": name, "options": options}
    save_weights(PACKAGE / "weights" / f"{name}.safetensors", tensors, record)


def figures() -> None:
    """Accuracy against size of each packed network, on test images not trained on, and its card."""
    rows = {}
    for name in list_pretrained():
        source = SAMPLES[PACKED[name].samples][0]
        audited = audit(
            f"{name}@pretrained",
            source,
            AuditSpec(scales=SCALES),
            selection=ImageSelection(count=TEST_IMAGES),
        ).only
        curve = audited.curve
        rows[name] = {
            "recipe": f"recipes/{PACKED[name].run}.yaml",
            "test_images": len(curve.labels),
            "accuracy": {f"{scale:g}": curve.accuracy(scale) for scale in curve.scales},
            "interval": {f"{scale:g}": curve.interval(scale) for scale in curve.scales},
            "parameters": audited.cost.parameters,
            "multiplications": audited.cost.multiplications,
        }
        write_card(name, rows[name])
        print(name, rows[name]["accuracy"])
    record = {
        "schema": "nearfar.pretrained/1",
        "command": "python -m benchmarks.pretrained figures",
        "machine": machine(),
        "date": today(),
        "versions": versions(),
        "networks": rows,
    }
    path = ROOT / "results" / "pretrained.json"
    write_atomically(path, json.dumps(record, indent=1) + "\n")


def write_card(name: str, row: dict[str, Any]) -> None:
    """The card beside the weights: what they are, their figures, and what they are not for."""
    file = pretrained_file(name)
    assert file is not None
    packed = PACKED[name]
    sizes = " | ".join(row["accuracy"])
    shares = " | ".join(f"{100 * share:.1f}" for share in row["accuracy"].values())
    card = model_card(load_checkpoint(file), f"{name}@pretrained")
    card += f"""
## Figures

Right answers in per cent by the size of the thing (1: as in the data set), on {row["test_images"]} images of
the official test part; trained by `{row["recipe"]}`, one seed; `python -m benchmarks.pretrained figures`:

| size | {sizes} |
| --- |{" ---: |" * len(row["accuracy"])}
| right | {shares} |

## Limits

{packed.licence} Numbers of matrices and filters are stored in half precision. A net for examples, comparisons
and teaching: do not rest decisions on it.
"""
    write_atomically(file.with_suffix(".md"), card)


def main() -> None:
    """The step that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=("samples", "pack", "figures"))
    parser.add_argument(
        "names", nargs="*", help="networks to pack; default: all whose runs are there"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if arguments.step == "samples":
        write_samples()
    elif arguments.step == "figures":
        figures()
    else:
        for name in arguments.names or PACKED:
            if (arguments.runs / PACKED[name].run / "weights.safetensors").is_file():
                pack(name, arguments.runs)


if __name__ == "__main__":
    main()
