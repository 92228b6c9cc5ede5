"""Every family of networks through every command: ``python -m benchmarks.sweep [NAME …]``.

One small network of each of timm's families and every classifier of torchvision's, with random weights, is
opened, asked about two photographs, counted, audited on eight images, converted by each method and exported;
what comes out at scale 1 is compared with the plain network and its publisher's own transform, outside of
nearfar. Written to ``results/sweep.json`` network by network, each in a process of its own: what is there
already is not run again. ``docs/sweep.md`` is made of it.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import re
import sys
import tempfile
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from multiprocessing.connection import Connection
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
from nearfar.provenance import machine, today

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "results" / "sweep.json", ROOT / "docs" / "sweep.md"
STEPS = ("open", "predict", "count", "audit", *(f"convert {m}" for m in list_methods()), "export")
#: How far logits may lie apart, as a share of the largest: sums in another order.
TOLERANCE = 1e-4
LIMIT_S = 900
#: Of torchvision's networks of more operations than this, those that take any size see smaller images.
LARGE_GFLOPS, SMALL_SIDE = 4.0, 96
SCALES = (0.5, 1.0, 2.0)

#: One small network of each module of timm's (1.0.31), the cheapest first.
FAMILIES = """
test_nfnet starnet_s050 dla46x_c mobilenetv3_small_050 mobilevit_xxs mobilenetv2_035
edgenext_xx_small ese_vovnet19b_slim_dw repghostnet_050 efficientvit_m0 ghostnet_050 regnetx_002
cspnext_tiny iformer_t xcit_nano_12_p8_224 efficientvit_b0 swiftformer_xs efficientformerv2_s0
pvt_v2_b0 convnext_atto_rms lcnetv2_small inception_next_atto cs3darknet_focus_s rexnet_100
hardcorenas_b fastvit_t8 repvit_m0_9 coat_tiny eva02_tiny_patch14_224 convit_tiny
deit_tiny_patch16_224 vit_tiny_patch16_224 gmlp_ti16_224 hgnetv2_b0 shvit_s1 vit_tiny_r_s16_p8_224
cpubone_nano efficientvim_m1 mambaout_femto levit_128s densenet121 crossvit_tiny_240 gernet_s dpn48b
maxvit_pico_rw_256 visformer_tiny halonet_h1 resnest14d pit_xs_224 resnetv2_18 resnet18
legacy_seresnet18 cait_xxs24_224 skresnet18 gcvit_xxtiny tiny_vit_5m_224 efficientformer_l1
hrnet_w18_small lowformer_b0 nest_tiny convmixer_768_32 vit_srelpos_small_patch16_224
vitamin_small_224 tnt_s_legacy_patch16_224 rdnet_tiny twins_svt_small mvitv2_tiny res2next50
caformer_s18 volo_d1_224 sequencer2d_s hiera_tiny_224 swin_tiny_patch4_window7_224
swinv2_cr_tiny_224 davit_tiny focalnet_tiny_srf selecsls42 fasternet_s tresnet_m nextvit_small
swinv2_tiny_window8_256 legacy_xception inception_v3 hieradet_small xception41p csatv2 inception_v4
samvit_base_patch16_224 beit_base_patch16_224 inception_resnet_v2 mobilenetv5_base vgg11
pnasnet5large nasnetalarge naflexvit_base_patch16_parfac_gap qwen3_vit_88m gemma4_vit_167m
deepseek_vit_412m
""".split()  # noqa: SIM905 (a hundred lines else)


def names() -> list[str]:
    """All networks of the sweep."""
    models = torchvision.models
    cost = {
        name: models.get_model_weights(name).DEFAULT.meta["_ops"]
        for name in models.list_models(module=models)
    }
    return [*FAMILIES, *(f"torchvision/{name}" for name in sorted(cost, key=cost.__getitem__))]


def side_of(name: str) -> int | None:
    """The side of images for large networks that take any; ``None`` for the published one."""
    bare = name.removeprefix("torchvision/")
    if bare == name or "vit" in bare:
        return None
    weights = torchvision.models.get_model_weights(bare).DEFAULT
    return SMALL_SIDE if weights.meta["_ops"] > LARGE_GFLOPS else None


def plain_network(name: str) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    """The network without nearfar, with the weights that nearfar draws, and its publisher's transform."""
    torch.manual_seed(0)
    bare = name.removeprefix("torchvision/")
    if bare == name:
        network = timm.create_model(name)
        config = resolve_data_config({}, model=network)
        return network.eval(), create_transform(**config, is_training=False)
    network = torchvision.models.get_model(bare, weights=None)
    transform = torchvision.models.get_model_weights(bare).DEFAULT.transforms()
    if side := side_of(name):
        resize = round(side * transform.resize_size[0] / transform.crop_size[0])
        transform.crop_size, transform.resize_size = [side], [resize]
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


def _in_a_process(name: str) -> dict[str, str]:
    """A network's outcome; a crash or a hang of one ends nothing else."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    # Forked, so that everything is imported once; no thread runs before that.
    process = multiprocessing.get_context("fork").Process(target=_send, args=(name, sender))
    process.start()
    sender.close()
    try:
        if not receiver.poll(LIMIT_S):
            return {"open": f"FAULT: not done within {LIMIT_S} s"}
        outcome: dict[str, str] = receiver.recv()
        return outcome
    except EOFError:
        process.join()
        return {"open": f"FAULT: the process ended with status {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _send(name: str, sender: Connection) -> None:
    try:
        sender.send(Sweep(name).run())
    except Exception as fault:  # of the plain network, outside of nearfar
        sender.send({"open": f"FAULT: {type(fault).__name__}: {first_line(fault)}"})


def run_all(names_to_run: list[str]) -> dict[str, dict[str, str]]:
    """Each network in a process of its own, written down when it is done."""
    record_before = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"networks": {}}
    results: dict[str, dict[str, str]] = record_before["networks"]
    for number, name in enumerate(names_to_run):
        if name in results:
            continue
        outcome = _in_a_process(name)
        results[name] = outcome
        words = Counter(text.partition(":")[0] for text in outcome.values())
        print(f"{number + 1}/{len(names_to_run)} {name}: {dict(words)}", flush=True)
        record = {
            "command": "python -m benchmarks.sweep",
            "date": today(),
            "machine": machine(),
            "versions": {
                package.__name__: package.__version__ for package in (torch, torchvision, timm)
            },
            "networks": results,
        }
        RESULTS.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return results


def write_page() -> None:
    """``docs/sweep.md`` from the figures."""
    record = json.loads(RESULTS.read_text())
    results: dict[str, dict[str, str]] = record["networks"]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    steps = [step for step in STEPS if any(step in outcome for outcome in results.values())]
    lines = [
        "# Every family through every command",
        "",
        f"One small network of each of timm's families and every classifier of torchvision's, "
        f"{len(results)} in all, with random weights: opened by name, asked about two photographs, counted, "
        f"audited on eight images at {', '.join(f'{s:g}' for s in SCALES)} times their size, converted by "
        "each method, exported to a program of torch.export. What comes out at scale 1 is compared with the "
        f"plain network and its publisher's own transform: logits within {TOLERANCE:g} of the largest. "
        f"torchvision's networks of more than {LARGE_GFLOPS:g} GFLOPs see {SMALL_SIDE} pixels. "
        f"`python -m benchmarks.sweep` makes `results/sweep.json` ({record['date']}, {versions}, "
        f"{record['machine']}), and this page with `--page`.",
        "",
        "✓ works and is the same; – is refused with a reason, listed below.",
        "",
        f"| network | {' | '.join(step.removeprefix('convert ') for step in steps)} |",
        f"| --- |{' --- |' * len(steps)}",
    ]
    marks = {"ok": "✓", "refused": "–", "FAULT": "**fault**", "": ""}
    for name in sorted(results):
        outcome = results[name]
        cells = (marks[re.split("[:,]", outcome.get(step, ""))[0]] for step in steps)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## What is refused, and why", ""]
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, outcome in sorted(results.items()):
        for step in steps:
            kind, _, reason = outcome.get(step, "").partition(": ")
            if kind in ("refused", "FAULT"):
                reasons[step, _general(reason)].append(name)
    for (step, reason), networks in sorted(reasons.items()):
        lines += [f"- **{step}**: {reason} ({len(networks)}: {', '.join(networks)})"]
    counts = [
        f"{name}: {text.removeprefix('ok, ')}"
        for name, outcome in sorted(results.items())
        if (text := outcome.get("count", "")).startswith("ok, ")
    ]
    lines += ["", "## Multiplications that torch's counter has otherwise", ""]
    lines += ["; ".join(counts) + "." if counts else "None."]
    PAGE.write_text("\n".join(lines) + "\n")
    print(f"written to {PAGE}")


def _general(reason: str) -> str:
    """A reason without what differs from network to network: class names, layers, shapes, other methods."""
    reason = reason.partition("; methods that can")[0]
    _, _, layers = reason.partition(" can change; ")
    if layers:
        whys = re.findall(r" stays: ([^;]+)", layers)
        whys = [re.sub(r"^\w+ computes", "a layer computes", why) for why in whys]
        return f"no layer that the method can change: {'; '.join(dict.fromkeys(whys))}"
    for pattern, text in (
        (r"^[\w@/.]+ (?=takes|is|cannot|has|gives)", "the network "),
        (r"^method '\w+'(: | )", ""),
        (r"got [A-Z]\w+", "got another"),
        (r"\d+×\d+(×\d+)?", "N×N"),
        (
            r"^[A-Z]\w+ cannot be tried with an image of N×N: [^;]*;",
            "it takes no images of other sizes;",
        ),
        (r"\d+ blocks", "few blocks"),
        (r"the maps of \w+ are at 1/\d+ of the image", "its maps are all of one size"),
        (r"which a level has \(.*?\); give", "which a level has; give"),
        (
            r"the features of \w+ are not maps \[B, C, H, W\] but [^;]*",
            "its features are not maps [B, C, H, W]",
        ),
    ):
        reason = re.sub(pattern, text, reason)
    return reason


def main() -> None:
    """Runs what is named, or all; or one in this process; or writes the page."""
    words = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    if words[:1] == ["--one"]:
        print(json.dumps(Sweep(words[1]).run()))
        return
    if words != ["--page"]:
        run_all(words or names())
    write_page()


if __name__ == "__main__":
    main()
