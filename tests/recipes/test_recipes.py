"""Every recipe can be read, and its network built and run at its size; under -m slow it also trains."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from nearfar.cli.main import main
from nearfar.cli.parsing import parse_call
from nearfar.experiments.reproduce import find_table
from nearfar.models import create_model, list_models
from nearfar.training import TrainerSpec, train

ROOT = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path.stem for path in ROOT.glob("*.yaml"))
DATA = Path(os.environ.get("NEARFAR_DATA", "data"))
CHANNELS = {"digits": 1, "mnist": 1, "mnist_scale": 1}
FOLDERS = {
    "mnist": "MNIST",
    "mnist_scale": "MNIST",
    "cifar10": "cifar10-jpeg",
    "tiny_imagenet": "tiny-imagenet-100",
}


def read(name):
    return parse_call(train, ["--config", str(ROOT / f"{name}.yaml")], "")


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_whole(name):
    options = read(name)
    text = (ROOT / f"{name}.yaml").read_text()
    assert f"nearfar train --config recipes/{name}.yaml" in text
    assert options["out"] == Path("runs") / name
    spec, data = options["model"], options["data"]
    side = data.protocol.canvas
    channels = CHANNELS.get(data.source, 3)
    with torch.device("meta"):
        model = create_model(spec.name, num_classes=10, in_chans=channels, **spec.options).eval()
        assert model(torch.empty(1, channels, side, side)).shape == (1, 10)


def test_every_family_has_a_recipe():
    def family(name):
        return re.sub(r"\d+", "#", name)

    have = {family(read(name)["model"].name) for name in RECIPES}
    without = {family(name) for name in list_models()} - have
    # Deeper, shallower or otherwise integrated twins of others.
    assert without == set()


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("cnn_mnist_scale", "plain"),
        ("hierarchical_mnist_scale", "hierarchical"),
        ("si_mnist_scale", "SI"),
        ("zoom_mnist_scale", "zooming net, closer windows, warped"),
        ("wide_zoom_mnist_scale", "wide zooming net, warped, sizes exchanged"),
    ],
)
def test_recipe_is_the_first_fold_of_its_row(name, row):
    options = read(name)
    first = next(run for run in find_table("mnist-scale", fast=False)[1] if run.row == row)
    assert options["model"] == first.recipe.model
    assert options["data"].explicit() == first.recipe.data
    assert options["fit"] == first.recipe.fit
    assert options["seed"] == first.recipe.seed
    assert options.get("trainer", TrainerSpec()) == first.recipe.trainer


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_trains(name, tmp_path, monkeypatch):
    """One epoch on a few images, through the command."""
    monkeypatch.delenv("NEARFAR_KERNELS", raising=False)
    options = read(name)
    source, fit = options["data"].source, options["fit"]
    given = ["--config", str(ROOT / f"{name}.yaml"), "--out", str(tmp_path / "run")]
    given += ["--fit.epochs", "1", "--fit.batch_size", "4"]
    if source != "mnist_scale":
        given += ["--data.split", "seed"]
    counts = (64, 32, 32)
    if source == "stream_folder":
        counts = (8, 4, 4)
        for label in ("cat", "dog"):
            (tmp_path / "images" / label).mkdir(parents=True)
            for i in range(8):
                pixels = torch.randint(256, (40, 60, 3), dtype=torch.uint8).numpy()
                Image.fromarray(pixels).save(tmp_path / "images" / label / f"{i}.png")
        given += ["--data.root", str(tmp_path / "images")]
    elif source in FOLDERS:
        if not (DATA / FOLDERS[source]).is_dir():
            pytest.skip(f"needs {FOLDERS[source]} in NEARFAR_DATA")
        if source == "tiny_imagenet":
            counts = (200, 200, 200)
    for part, n in zip(("train", "validation", "test"), counts, strict=True):
        given += [f"--data.{part}", str(n)]
    if fit.milestones:
        given += ["--fit.schedule", "constant", "--fit.milestones", "[]"]
    if fit.warmup_epochs:
        given += ["--fit.warmup_epochs", "0", "--fit.warmup_lr", "null"]
    assert main(["train", *given]) == 0
    assert (tmp_path / "run" / "weights.safetensors").is_file()
