"""Does the loader keep up? ``python -m benchmarks.loading`` (about six minutes; ``--short`` one).

For each of some recipes, on 2 threads: how many times as fast as a training step consumes them batches can
be loaded (goal: 3), and how much longer an epoch takes with the loader, and under Lightning, than its bare
steps on batches in memory (goal: 1.1). Everything in turn, the median. Needs $NEARFAR_DATA with MNIST and
CIFAR-10. Writes results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import platform
import time
import warnings
from itertools import islice
from pathlib import Path

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import interleaved
from nearfar.atomic import write_atomically
from nearfar.cli.parsing import parse_call
from nearfar.data import DataSpec, Normalised, ScaleDataModule
from nearfar.models import create_model
from nearfar.provenance import today
from nearfar.training import FitSpec, ModelSpec, train
from nearfar.training.lightning_module import ClassifierModule
from nearfar.training.optimisation import make_optimizer

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
#: The quickest net, the quickest convolutional ones, and one whose images are augmented in every way.
RECIPES = ("mlp_mnist", "digits_plain", "resnet20_cifar")
BATCHES = 100
#: Seconds that a pass of steps takes at most, and how many batches it has all the same.
LONGEST, FEWEST = 3.0, 10


class Epoch:
    """One recipe's epoch, cut to some batches, in three ways."""

    def __init__(self, name: str, batches: int, random_scale: bool = False) -> None:
        line = ["--config", str(ROOT / "recipes" / f"{name}.yaml")]
        if random_scale:
            line += ["--data.random_scale", "[0.5,2]"]
        options = parse_call(train, line, "")
        data, fit, model = options["data"], options["fit"], options["model"]
        assert isinstance(data, DataSpec)
        assert isinstance(fit, FitSpec)
        assert isinstance(model, ModelSpec)
        torch.manual_seed(0)
        self.images = ScaleDataModule(data, fit.batch_size)
        self.loader = self.images.train_dataloader()
        self.batches = min(batches, len(self.loader))
        self.batches_in_memory = list(islice(iter(self.loader), self.batches))
        network = create_model(
            model.name,
            num_classes=len(self.images.class_names),
            in_chans=self.images.in_chans,
            **model.options,
        ).to(memory_format=torch.channels_last)
        figures = self.images.normalisation()
        self.network: nn.Module = network if figures is None else Normalised(network, figures)
        self.optimizer = make_optimizer(network, fit)
        self.classifier = ClassifierModule(self.network, fit, len(self.images.class_names))
        self.trainer_s: list[float] = []
        # A pass of a slow net need not take longer than that of a quick one to be timed as well.
        self._step(*self.batches_in_memory[0])
        start = time.perf_counter()
        self._step(*self.batches_in_memory[0])
        enough = math.ceil(LONGEST / (time.perf_counter() - start))
        self.batches = min(self.batches, max(enough, FEWEST))
        self.batches_in_memory = self.batches_in_memory[: self.batches]

    def load(self) -> None:
        """Batches alone."""
        for _ in islice(iter(self.loader), self.batches):
            pass

    def steps(self) -> None:
        """Steps on batches in memory."""
        for images, labels in self.batches_in_memory:
            self._step(images, labels)

    def both(self) -> None:
        """Steps on batches as they are loaded."""
        for images, labels in islice(iter(self.loader), self.batches):
            self._step(images, labels)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        F.cross_entropy(self.network(images), labels).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    def under_lightning(self) -> None:
        """The same epoch as ``nearfar train`` runs it; only its batches are timed."""
        clock = _Clock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            L.Trainer(
                accelerator="cpu",
                max_epochs=1,
                limit_train_batches=self.batches,
                limit_val_batches=0,
                callbacks=[clock],
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            ).fit(self.classifier, datamodule=self.images)
        self.trainer_s.append(clock.seconds)


class _Clock(L.Callback):
    seconds = 0.0

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = -time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds += time.perf_counter()


def measure(epoch: Epoch, repeats: int) -> dict[str, float]:
    """Medians of one recipe, as ratios."""
    load, steps, both, _ = interleaved(
        [epoch.load, epoch.steps, epoch.both, epoch.under_lightning], repeats
    )
    lightning = sorted(epoch.trainer_s[1:])[len(epoch.trainer_s[1:]) // 2]
    return {
        "batches": epoch.batches,
        "images_a_second_loaded": round(epoch.batches * epoch.images.batch_size / load),
        "images_a_second_trained": round(epoch.batches * epoch.images.batch_size / steps),
        "loading_over_training": round(steps / load, 2),
        "epoch_over_steps": round(both / steps, 3),
        "lightning_epoch_over_steps": round(lightning / steps, 3),
    }


def main() -> None:
    """Times and writes the ratios."""
    short = argparse.ArgumentParser()
    short.add_argument("--short", action="store_true", help="try it; write nothing")
    is_short = short.parse_args().short
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(2)
    ratios = {}
    for name, random_scale in (*((r, False) for r in RECIPES), (RECIPES[-1], True)):
        key = f"{name}, random_scale" if random_scale else name
        epoch = Epoch(name, 10 if is_short else BATCHES, random_scale)
        ratios[key] = measure(epoch, 3 if is_short else 9)
        print(f"{key}: {ratios[key]}", flush=True)
    if is_short:
        return
    record = {
        "schema": "nearfar.loading/1",
        "command": "python -m benchmarks.loading",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        "torch": torch.__version__,
        "date": today(),
        "threads": 2,
        "recipes": ratios,
    }
    write_atomically(RESULTS / "loading.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
