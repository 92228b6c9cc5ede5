"""One network's way through every command, compared with the plain network outside of nearfar."""

from __future__ import annotations

import dataclasses
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import nearfar
from nearfar.auditing import AuditSpec
from nearfar.classifiers import Classifier
from nearfar.conversion import convert_network, list_methods, method_class
from nearfar.counting import count
from nearfar.data import LabelledImages
from nearfar.errors import InputError, first_line
from nearfar.models.modes import evaluating
from nearfar.models.torchvision_nets import has_fixed_side

STEPS = ("open", "predict", "count", "audit", *(f"convert {m}" for m in list_methods()), "export")
#: How far logits may lie apart, as a share of the largest: sums in another order.
TOLERANCE = 1e-4
#: Of torchvision's networks of more operations than this, those that take any size see smaller images.
LARGE_GFLOPS, SMALL_SIDE, VIT_SIDE = 4.0, 96, 224
SCALES = (0.5, 1.0, 2.0)


def side_of(name: str) -> int | None:
    """The side of images for large networks that take any; ``None`` for the published one."""
    bare = name.removeprefix("torchvision/")
    if bare == name:
        return None
    weights = torchvision.models.get_model_weights(bare).DEFAULT
    if "vit" in bare:
        return VIT_SIDE if weights.transforms().crop_size[0] > VIT_SIDE else None
    return SMALL_SIDE if weights.meta["_ops"] > LARGE_GFLOPS else None


def plain_network(name: str) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    """The network without nearfar, with the weights that nearfar draws, and its publisher's transform."""
    torch.manual_seed(0)
    bare = name.removeprefix("torchvision/")
    if bare == name:
        network = timm.create_model(name)
        config = resolve_data_config({}, model=network)
        return network.eval(), create_transform(**config, is_training=False)
    transform = torchvision.models.get_model_weights(bare).DEFAULT.transforms()
    if side := side_of(name):
        resize = round(side * transform.resize_size[0] / transform.crop_size[0])
        transform.crop_size, transform.resize_size = [side], [resize]
    fixed = {"image_size": transform.crop_size[0]} if has_fixed_side(bare) else {}
    network = torchvision.models.get_model(bare, weights=None, **fixed)
    return network.eval(), transform


def photographs() -> list[Image.Image]:
    """Two noisy photographs, one upright and one wide."""
    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((300, 400), (500, 333))
    ]


class Sweep:
    """One network's way through the commands; what each step gave, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.outcome: dict[str, str] = {}
        self.opened: Classifier | None = None
        self.plain, self.transform = plain_network(name)
        with torch.inference_mode():
            images = torch.stack([self.transform(image) for image in photographs()])
            self.logits = self.plain(images)

    def run(self) -> dict[str, str]:
        """All steps; a step that refuses or fails does not end those after it."""
        steps = {
            "open": self.open,
            "predict": self.predict,
            "count": self.count,
            "audit": self.audit,
            **{f"convert {name}": lambda name=name: self.convert(name) for name in list_methods()},
            "export": self.export,
        }
        for step, run in steps.items():
            if step != "open" and self.opened is None:
                break
            try:
                self.outcome[step] = run() or "ok"
            except InputError as refusal:
                self.outcome[step] = f"refused: {first_line(refusal)}"
            except Exception as fault:
                traceback.print_exc()
                self.outcome[step] = f"FAULT: {type(fault).__name__}: {first_line(fault)}"
        return self.outcome

    def open(self) -> None:
        """The same network and weights, by its name."""
        self.opened = nearfar.load_classifier(self.name, size=side_of(self.name))
        assert self.opened.module is not None
        state = self.opened.module.network.state_dict()
        plain = self.plain.state_dict()
        assert state.keys() == plain.keys(), "other tensors"
        assert all(state[key].equal(tensor) for key, tensor in plain.items()), "other weights"

    def predict(self) -> None:
        """Files of two photographs: the plain network's probabilities."""
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / f"{number}.png" for number in range(2)]
            for path, image in zip(paths, photographs(), strict=True):
                image.save(path)
            answers = list(nearfar.predict(self._opened(), paths))
        for answer, shares in zip(answers, self.logits.double().softmax(1), strict=True):
            assert not answer.error, answer.error
            error = abs(answer.confidence - float(shares.max()))
            assert error < TOLERANCE * float(shares.max()), "another probability"
            # Of random weights some classes are equally likely.
            error = float(shares.max() - shares[answer.index])
            assert error < TOLERANCE * float(shares.max()), "another class"

    def count(self) -> str:
        """Parameters and multiplications: torch's own counts."""
        module = self._opened().module
        assert module is not None
        network: Any = module.network
        size = self._opened().input_spec.protocol.canvas_size
        table = count(network, (3, *size))
        assert table.parameters == sum(p.numel() for p in network.parameters()), "parameters"
        counter = FlopCounterMode(display=False)
        attention = sdpa_kernel(SDPBackend.MATH)
        # With gradients: the counter follows modules by their hooks.
        with evaluating(network), attention, counter:
            network(torch.zeros(1, 3, *size))
        torch_count = counter.get_total_flops() // 2
        if table.multiplications == torch_count:
            return "ok"
        share = table.multiplications / max(1, torch_count) - 1
        return f"ok, {100 * share:+.2g} % of multiplications beside torch's count"

    def audit(self) -> None:
        """Eight images: at scale 1 the plain network's classes."""
        opened = self._opened()
        height, width = opened.input_spec.protocol.canvas_size
        pixels = torch.randint(
            256, (8, 3, height + 16, width + 40), generator=torch.Generator().manual_seed(1)
        ).to(torch.uint8)
        classes = tuple(map(str, range(opened.input_spec.num_classes)))
        data = LabelledImages(pixels, torch.arange(8), classes)
        spec = AuditSpec(scales=SCALES, flips=0, batch_size=8)
        (result,) = nearfar.audit(opened, data, spec).results.values()
        images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
        with torch.inference_mode():
            logits = self.plain(torch.stack([self.transform(image) for image in images]))
        top = logits.softmax(1).topk(2).values
        certain = (top[:, 0] - top[:, 1]) > TOLERANCE  # of random weights some answers are ties
        predictions = result.curve.predictions[list(result.curve.scales).index(1.0)]
        assert predictions[certain].equal(logits.argmax(1)[certain]), "other classes"

    def convert(self, method: str) -> str | None:
        """By a method: runs at its own scales, and is the plain network where scale 1 is the only one."""
        module = self._opened().module
        assert module is not None
        network: Any = module.network
        side = max(self._opened().input_spec.protocol.canvas_size)
        kind = method_class(method)
        fields = {field.name for field in dataclasses.fields(kind)}
        converted, plan = convert_network(network, kind(), side)
        images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            outputs = converted.eval()(images)
            network.eval()
            assert bool(outputs.isfinite().all()), "numbers that are not finite"
            if method in ("si", "pyramid-ensemble") and "scales" in fields:
                same, _ = convert_network(network, kind(scales=(1.0,)), side, trial=False)
                expected, answer = network(images), same.eval()(images)
                if method == "pyramid-ensemble":
                    expected = expected.log_softmax(1)
                _check_close(answer, expected)
        return f"ok: {len(plan.changes)} changed"

    def export(self) -> str:
        """A program of torch.export, compared with the network."""
        with tempfile.TemporaryDirectory() as folder:
            result = nearfar.export(self._opened(), Path(folder) / "net.pt2")
            again = nearfar.load_classifier(result.path)
            transformed = [
                self._opened().input_spec.protocol.render(
                    [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)], 1.0
                )
                for image in photographs()
            ]
            _check_close(again.predict(torch.cat(transformed)), self.logits)
        return f"ok: {result.openness}"

    def _opened(self) -> Classifier:
        assert self.opened is not None
        return self.opened


def _check_close(answer: Tensor, expected: Tensor) -> None:
    error = float((answer - expected).abs().max() / expected.abs().max().clamp(min=1e-6))
    assert error < TOLERANCE, f"logits differ by {error:.2g} of the largest"
