"""Audits made up for tests: no network behind them, every figure known or drawn by seed."""

from __future__ import annotations

import dataclasses
import math

import torch

from nearfar.auditing.accuracy import ScaleCurve
from nearfar.auditing.cost import Cost
from nearfar.auditing.findings import audit_findings
from nearfar.auditing.result import Audit, AuditResult, Failure, Flips, LayerScores, Verdict
from nearfar.data import ScaleProtocol

SCALES = (0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5, 2.0)
CIFAR = ("aeroplane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PROTOCOL = ScaleProtocol(canvas=32, content=16)


def exact(accuracies, total=100, confidence=None):
    """A curve with exactly these accuracies by scale, all of class 0, right on the first images."""
    at = torch.arange(total)
    answers = torch.stack([(at >= round(a * total)).long() for a in accuracies.values()])
    sure = None if confidence is None else torch.full(answers.shape, confidence)
    return ScaleCurve(tuple(accuracies), answers, torch.zeros(total, dtype=torch.long), sure)


def result_of(curve, name="net", classes=("cat", "dog", "ship"), **more):
    """A result with nothing but its curve, and what is given."""
    return AuditResult(name, "made-up", tuple(classes), PROTOCOL, curve, **more)


def bare(curves, baseline="", max_loss=0.05, classes=("cat", "dog", "ship")):
    """An audit of curves alone."""
    results = {name: result_of(curve, name, classes) for name, curve in curves.items()}
    baseline = baseline or next(iter(results))
    return Audit(results, baseline, audit_findings(results, baseline, max_loss), max_loss)


def full(models=None, classes=CIFAR, images=500, scales=SCALES, seed=0, layers=9, failures=6):
    """An audit with everything in it.

    Args:
        models: for each, how many octaves from 1 it falls to a half; the baseline first.
    """
    models = models or {"resnet20": 0.9, "si_resnet20": 2.0, "wsms_resnet20": 1.4}
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(images) % len(classes)
    hard = torch.rand(images, generator=draw) + 0.06 * (labels % 5)
    results = {}
    for place, (name, octaves) in enumerate(models.items()):
        curve = _curve(scales, labels, hard, octaves, len(classes), draw)
        results[name] = AuditResult(
            name,
            "cifar10",
            tuple(classes),
            PROTOCOL,
            curve,
            cost=Cost(272_474 + 8_000 * place, 40_813_184 * (place + 1)),
            seconds=0.0215 * (1 + 1.7 * place),
            memory=(24 + 9 * place) * 2**20,
            batch=64,
            flips=_flips(octaves, draw),
            layers=_layers(layers, octaves),
            failures=tuple(_failure(i, labels, classes, draw) for i in range(failures)),
            notes=(
                "At scale s an image covers 16·s pixels about the middle of a canvas of 32×32.",
                "Above 2× images are enlarged beyond the pixels that they hold.",
            ),
        )
    baseline = next(iter(models))
    return Audit(
        results,
        baseline,
        audit_findings(results, baseline, 0.05),
        0.05,
        {
            "command": f"nearfar audit {' '.join(models)} --data cifar10 --out runs/audit --layers",
            "versions": "nearfar 0.1.0, torch 2.6.0, Python 3.11",
            "machine": "Linux x86_64, 2 threads, CPU",
            "date": "2026-01-31",
        },
    )


def with_verdicts(audit):
    """The audit, judged by two requirements: the first is missed."""
    name = audit.baseline
    verdicts = (
        Verdict("top1@0.5>=0.5", name, 0.41, False),
        Verdict("top1@1>=0.7", name, 0.8, True),
    )
    return dataclasses.replace(audit, verdicts=verdicts)


def _curve(scales, labels, hard, octaves, classes, draw):
    rows, sure, fives = [], [], []
    for scale in scales:
        away = abs(math.log2(scale)) * (1 if scale < 1 else 1.3)
        chance = 0.86 * 0.5 ** ((away / octaves) ** 2)
        right = hard < chance * (1 + 0.1)
        wrong = (labels + 1 + torch.randint(classes - 1, labels.shape, generator=draw)) % classes
        rows.append(torch.where(right, labels, wrong))
        noise = torch.rand(labels.shape, generator=draw)
        sure.append(torch.where(right, 0.75 + 0.25 * noise, 0.45 + 0.5 * noise))
        fives.append(right | (torch.rand(labels.shape, generator=draw) < 0.5))
    top5 = torch.stack(fives) if classes > 5 else None
    return ScaleCurve(tuple(scales), torch.stack(rows), labels, torch.stack(sure), top5)


def _flips(octaves, draw, count=200):
    def factors(limit):
        found = 2 ** (octaves * torch.rand(count, generator=draw) ** 0.7 * 1.6)
        return torch.where(found > limit, torch.nan, found)

    return Flips(
        torch.arange(count),
        1 / factors(4.0),
        factors(3.0),
        lowest=0.25,
        highest=3.0,
        precision=1.02,
    )


def _layers(count, octaves):
    names = (
        "conv1",
        *(f"layer{1 + i // 3}.{i % 3}.conv{1 + i % 2}" for i in range(count - 2)),
        "fc",
    )
    return LayerScores(
        names,
        tuple(2 + octaves * 2 + 5 * math.sin(i / 3) ** 2 + i / 3 for i in range(count)),
        (0.5, 0.71, 1.41, 2.0),
        tuple(
            tuple((0.15 + 0.05 * k) * (1 + 0.2 * i) / octaves for k in (2, 1, 1.2, 2.4))
            for i in range(count)
        ),
        {"bn1": "gives no map of its own", "flatten": "gives no map of its own"},
        250,
    )


def _failure(i, labels, classes, draw):
    image = _thing(i, draw)
    scale = (0.5, 0.4, 2.0, 0.3, 1.5, 0.6)[i % 6]
    return Failure(
        index=17 * i + 3,
        scale=scale,
        label=i % len(classes),
        answer=(i + 1) % len(classes),
        confidence=0.99 - 0.02 * i,
        recognised_image=PROTOCOL.render(image, 1.0)[0],
        failed_image=PROTOCOL.render(image, scale)[0],
    )


def _thing(i, draw):
    """A coloured disc or square on a dim ground, ``[1, 3, 32, 32]``."""
    at = torch.arange(32.0) - 15.5
    y, x = at[:, None], at[None, :]
    inside = (x**2 + y**2 < 130) if i % 2 else (x.abs() < 9) & (y.abs() < 7)
    colour, ground = torch.rand(2, 3, 1, 1, generator=draw)
    image = torch.where(inside, 0.4 + 0.6 * colour, 0.3 * ground)
    return (image + 0.1 * torch.rand(3, 32, 32, generator=draw)).clamp(0, 1)[None]
