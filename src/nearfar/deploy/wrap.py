"""``nearfar wrap``: a classifier over several sizes, without training, within a budget."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nearfar.auditing import AuditSpec, ImageSelection, audit
from nearfar.auditing.audited_images import Data
from nearfar.classifiers import Classifier, InputOptions, Model, load_classifier
from nearfar.conversion import convert_network
from nearfar.data import Normalised
from nearfar.data.unreadable import SKIPPED, list_skipped
from nearfar.deploy.conversion_folder import claim, write_conversion
from nearfar.deploy.origin import Origin, digest, origin_of
from nearfar.deploy.wrap_images import WrapImages, images_to_wrap_on
from nearfar.deploy.wrap_result import WrapResult
from nearfar.deploy.wrap_spec import WrapSpec
from nearfar.errors import InputError
from nearfar.models import CascadeNet, HierarchicalNet
from nearfar.progress import Progress, Step, silent
from nearfar.training import FitSpec, Recipe, TrainerSpec
from nearfar.wrapping import CandidateLevels, Choice, LevelAnswers, candidate_levels, choose

__all__ = ["wrap"]

_BATCH = 128


def wrap(
    model: Model,
    images: Data = "",
    budget: float = 2.0,
    *,
    spec: WrapSpec | None = None,
    selection: ImageSelection = ImageSelection(),
    inputs: InputOptions | None = None,
    out: Path | str | None = Path("runs/wrap"),
    progress: Progress = silent,
) -> WrapResult:
    """Puts a trained classifier over several sizes of its images, without training it.

    The network is run once at every level (an image at one scale) on a few hundred images, each shown at
    several sizes. Which levels vote, how, at what temperature, and whether as a cascade that looks again only
    where it is unsure, is then chosen on these answers by cross-validation (:func:`nearfar.wrapping.choose`),
    so that an image costs no more than ``budget`` times the network's multiplications in the mean. The result
    is held against the network on images that had no part in this.

    With labels, right is what they say. Without (``images="unlabelled"`` and ``selection.root``), it is what
    the network answers at scale 1, and where levels are chosen an image counts by how sure that answer is.

    The folder ``out`` gets ``weights.safetensors``, a checkpoint as of a ``pyramid-ensemble``
    (:func:`nearfar.convert`) with the network's own weights, ``report.md`` and ``report.json``.

    Args:
        model: what :func:`nearfar.load_classifier` takes and is a network. It is not changed.
        images: as :func:`nearfar.audit` takes them: a dataset's name, a folder with a sub-folder a class, a
            ``DataSpec`` or the images themselves; or ``unlabelled``. Default: those that a checkpoint's
            training put aside.
        budget: how many times the network's own multiplications an image may cost in the mean, at least 1.
        spec: sizes, levels, and how many images; default: ``WrapSpec()``.
        selection: which of the images.
        inputs: what the model does not say about its images.
        out: folder to write; ``None`` writes nothing.
        progress: called after each batch.

    Returns:
        The classifier, what was chosen, what it gains with its interval, and what it costs.

    Raises:
        InputError: a model that is no network or was converted already, too few images, numbers out of range,
            or an ``out`` that holds something else.

    Limits:
        A level above 1 shows the middle of the image (``window``); things off centre are not in it. What is
        wrong at all levels stays wrong.
    """
    spec, inputs = spec or WrapSpec(), inputs or InputOptions()
    opened = load_classifier(model, **dataclasses.asdict(inputs))
    origin = origin_of(opened)
    protocol = opened.input_spec.protocol
    protocol.check_scale(min(spec.sizes), max(spec.sizes))
    if budget < 1:
        raise InputError(
            f"budget is how many times the network's own multiplications an image may cost, at least 1, got "
            f"{budget}"
        )
    parts = images_to_wrap_on(images, opened, selection, spec.choose_on, spec.check)
    job = _Wrapping(opened, origin, parts, spec, budget, progress)
    with claim(out, job.settings()) as folder:
        list_skipped(parts.every.skipped, folder / SKIPPED)
        result = job.run()
        if out is not None:
            path = job.write(folder, result)
            result = dataclasses.replace(result, path=path)
    return result


@dataclass(frozen=True)
class _Wrapping:
    """One wrapper: the original, its images and what was asked for."""

    opened: Classifier
    origin: Origin
    images: WrapImages
    spec: WrapSpec
    budget: float
    progress: Progress

    def settings(self) -> dict[str, Any]:
        """What decides the outcome, as plain data."""
        return {
            "model": dataclasses.asdict(self.origin.spec),
            "wrap": {"budget": self.budget, **dataclasses.asdict(self.spec)},
            "weights": digest(self.origin.network),
            "images": self.images.fingerprint(),
        }

    def run(self) -> WrapResult:
        """Chooses, builds and compares."""
        opened, spec = self.opened, self.spec
        canvas, in_chans = opened.input_spec.protocol.canvas_size, opened.input_spec.in_chans
        figures = self.origin.figures
        levels = candidate_levels(
            self.origin.network, canvas, in_chans, figures, spec.levels, spec.window
        )
        choice = choose(
            self._answers(levels),
            self.budget,
            most=spec.most,
            cascade=spec.cascade,
            max_loss=spec.max_loss,
            progress=self.progress,
        )
        method = choice.as_method(levels)
        network, plan = convert_network(self.origin.network, method, max(canvas))
        whole = network
        if figures is not None:
            like = next(p for p in network.parameters())
            whole = Normalised(network, figures).to(like.device, like.dtype)
        input_spec = dataclasses.replace(opened.input_spec, name=f"{opened.name}, wrapped")
        if self.images.labelled:
            input_spec = dataclasses.replace(input_spec, class_names=self.images.every.class_names)
        twin = Classifier(input_spec, whole, whole)
        both = {"original": opened, "converted": twin}
        sizes = tuple(sorted({*spec.sizes, 1.0}))
        comparison = audit(
            both,
            self.images.held_out(),
            AuditSpec(scales=sizes, flips=0),
            progress=self.progress,
        )
        cost = self._mean_cost(twin, network, levels, choice)
        result = WrapResult(
            twin,
            plan,
            comparison,
            spec.max_loss,
            self.images.labelled,
            rebuilt=self.origin.rebuilt,
            choice=choice,
            levels=levels,
            budget=self.budget,
            cost=cost,
            sizes=spec.sizes,
            images=len(self.images.choose),
        )
        notes = (*plan.notes, *levels.notes, *self.images.every.notes, *_sentences(result))
        return dataclasses.replace(result, plan=dataclasses.replace(plan, notes=notes))

    def write(self, folder: Path, result: WrapResult) -> Path:
        """Weights and report; a checkpoint's own images stay those of its wrapper."""
        conversion = result.plan.conversion
        spec = dataclasses.replace(self.origin.spec, convert=conversion)
        checkpoint, recipe, fingerprint = self.opened.checkpoint, None, None
        if self.origin.data is not None and checkpoint is not None:
            recipe = Recipe(spec, self.origin.data, FitSpec(), 0, TrainerSpec())
            fingerprint = checkpoint.record.get("data")
        module = result.classifier.module
        network = module.network if isinstance(module, Normalised) else module
        assert isinstance(network, nn.Module), "it was built"
        return write_conversion(folder, result, network, spec, recipe, fingerprint)

    def _answers(self, levels: CandidateLevels) -> LevelAnswers:
        """The network's answers at every level to the images to choose on, at every size."""
        sizes, images = self.spec.sizes, self.images
        nets = [Classifier(self.opened.input_spec, x.network, x.network) for x in levels.levels]
        total, done = len(sizes) * len(nets) * len(images.choose), 0
        rows: list[list[list[Tensor]]] = [[[] for _ in sizes] for _ in nets]
        for _, batch, s in self._rendered(images.choose):
            for row, net in zip(rows, nets, strict=True):
                row[s].append(net.predict(batch))
                done += len(batch)
            self.progress(Step("asking at every level", done, total))
        stacked = torch.stack([torch.stack([torch.cat(p) for p in row]) for row in rows])
        return LevelAnswers(
            stacked.log_softmax(dim=-1),
            images.every.labels[images.choose],
            [x.cost for x in levels.levels],
            levels.base,
            sizes.index(1.0) if 1.0 in sizes else None,
            images.weights,
        )

    def _rendered(self, which: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Some images at every size, some at a time: where they are, as they are shown, and which size."""
        spec = self.opened.input_spec
        for at in self.images.every.batches(which, _BATCH):
            decoded = self.images.every.read(at)
            for s, size in enumerate(self.spec.sizes):
                yield at, spec.protocol.render(decoded, size, channels=spec.in_chans), s

    def _mean_cost(
        self, twin: Classifier, network: nn.Module, levels: CandidateLevels, choice: Choice
    ) -> float:
        """What an image costs in the mean over the held-out ones at all sizes."""
        if not isinstance(network, CascadeNet):
            return choice.cost
        price = {x.size: x.cost for x in levels.levels}
        counts: Counter[tuple[int, int]] = Counter()

        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            height, width = inputs[0].shape[-2:]
            counts[height, width] += len(inputs[0])

        hook = network.net.register_forward_pre_hook(note)
        total = len(self.spec.sizes) * len(self.images.check)
        done = 0
        try:
            for _, batch, _ in self._rendered(self.images.check):
                twin.predict(batch)
                done += len(batch)
                self.progress(Step("counting looks", done, total))
        finally:
            hook.remove()
        return sum(price[size] * count for size, count in counts.items()) / total


def _sentences(result: WrapResult) -> list[str]:
    """What was chosen, what it gains and what it costs."""
    gain, half = result.gain
    choice = result.choice
    right = "right" if result.labelled else "answered as the original does at scale 1"
    sizes = ", ".join(f"{s:g}" for s in result.sizes)
    chosen = (
        f"Chosen on {result.images} images out of {choice.tried} structures by cross-validation, which puts "
        f"it at {100 * choice.accuracy:.1f} % {right} in the mean over sizes {sizes}, and the network itself "
        f"at {100 * choice.base_accuracy:.1f} %."
    )
    assert result.audit is not None, "it was compared"
    images = len(result.audit.results["original"].curve.labels)
    measured = (
        f"On {images} other images {100 * gain:+.1f} points ({100 * (gain - half):.1f} to "
        f"{100 * (gain + half):.1f}, 95 %) in the mean over these sizes."
    )
    spent = (
        f"An image costs {result.cost:.2f} times the network's {result.levels.multiplications:,} "
        f"multiplications in the mean over these sizes (budget {result.budget:g})."
    )
    sentences = [chosen, measured, spent]
    network = result.classifier.module
    inside = network.network if isinstance(network, Normalised) else network
    if isinstance(inside, HierarchicalNet) and len(inside.scales) == 1:
        sentences.append(
            "No other set of levels is better within the budget: the network stays what it is."
            if inside.scales == (1.0,)
            else "One level alone is best within the budget."
        )
    elif isinstance(inside, CascadeNet):
        most = sum(result.levels.levels[i].cost for i in choice.structure.order)
        sentences.append(f"An image that needs all looks costs {most:.2f} times as much.")
    return sentences
