"""``nearfar convert`` on the command line."""

from __future__ import annotations

import dataclasses
import inspect
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

from docstring_parser import parse
from rich.table import Table

from nearfar.classifiers import Answers, InputOptions
from nearfar.cli.display import console, shown_progress
from nearfar.cli.parsing import parse_call
from nearfar.conversion import ConversionMethod, list_methods, method_class
from nearfar.data import DataSpec
from nearfar.deploy import CheckSpec, ConvertResult, FinetuneSpec
from nearfar.deploy import convert as convert_model
from nearfar.deploy.conversion_folder import summary, verdict
from nearfar.deploy.conversion_settings import FINETUNE
from nearfar.errors import InputError
from nearfar.training import FitSpec

EXAMPLES = """\
  nearfar convert runs/digits_plain/weights.safetensors si --recalibrate
  nearfar convert resnet18@weights.pth antialias --layers layer3.*,layer4.* --data photos --recalibrate
  nearfar convert resnet18@pretrained pyramid-ensemble --data.source unlabelled --data.root photos --finetune
  nearfar convert resnet20_cifar@weights.th pyramid-ensemble --mean 0.485,0.456,0.406 \\
      --std 0.229,0.224,0.225 --data cifar10 --data.train 5000 --finetune --out runs/near_and_far
"""


def convert(
    model: str,
    method: str,
    *,
    data: DataSpec | None = None,
    recalibrate: bool = False,
    finetune: bool = False,
    fit: FitSpec = FINETUNE,
    distill: float | None = None,
    max_loss: float = CheckSpec.max_loss,
    check: int = CheckSpec.images,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    size: int | None = None,
    num_classes: int | None = None,
    answers: Answers | None = None,
    output: str | None = None,
    crop_pct: float | None = None,
    seed: int = 0,
    out: Path = Path("runs/convert"),
) -> dict[str, Any]:
    """Converts a trained network into a scale-aware one, and says what that did.

    The network given is not changed. The result is compared with the original at eight scales, on images
    that were kept out of recalibration and training. One that is worse at scale 1 by more than max_loss is
    written, but the command says so and ends with exit status 1.

    nearfar convert MODEL METHOD --help describes the settings of a method.

    Args:
        model: a checkpoint, a name with weights (``resnet18@FILE``, ``resnet18@pretrained``), or a
            ``package.module:network``.
        method: ``si``, ``pyramid-ensemble``, ``wsms``, ``antialias``, ``fixres``, or the
            ``package.module:Class`` of one of your own.
        data: images to recalibrate, train and compare on; default: those that a checkpoint of nearfar's was
            trained on, and else none. The network says how they are prepared: leave data.protocol out.
        recalibrate: give batch norms new statistics, before any training.
        finetune: train on, for a few epochs, on images at 0.4 to 2 times their size (fixres: at their size).
        fit: how to train on.
        distill: share of the original's predictions in what is taught, from 0 (labels alone) to 1. Default:
            0 with labels, 1 without.
        max_loss: how much accuracy (without labels: agreement with the original) at scale 1 may be lost, as
            a fraction.
        check: how many images to compare on, at most.
        mean, std: of each channel, of values from 0 to 1: what the network's input is normalised by.
        size: side of the network's images, in pixels.
        num_classes: how many classes the network tells apart.
        answers: logits or probabilities: what the network's numbers are, where a few images do not show it.
        output: name of the output with the classes' numbers, where the network has several.
        crop_pct: which share of an image's side the canvas shows; 1: all of it. Default: the model's own.
        seed: of the training.
        out: folder to write.

    Returns:
        Keyword arguments of :func:`nearfar.convert`.
    """
    if not finetune and (fit != FINETUNE or distill is not None):
        raise InputError(
            "fit and distill say how to train on; give finetune too, or leave them out"
        )
    return {
        "model": model,
        "data": data,
        "recalibrate": recalibrate,
        "finetune": FinetuneSpec(fit, distill, seed) if finetune else False,
        "check": CheckSpec(max_loss, check),
        "inputs": InputOptions(mean, std, size, num_classes, answers, output, crop_pct),
        "out": out,
    }


def run(arguments: list[str]) -> int:
    """Parses, runs, shows; 1 where the result is not accepted."""
    cls = _method(arguments)
    options = parse_call(_with_settings(cls), arguments, EXAMPLES, positional=True)
    names = [f.name for f in dataclasses.fields(cls)] if cls else []
    settings = {name: options.pop(name) for name in names}
    call = convert(**options)
    method = cls(**settings) if cls else options["method"]
    with shown_progress() as progress:
        result = convert_model(method=method, **call, progress=progress)
    show_conversion(result)
    return 1 if result.accepted is False else 0


def _method(arguments: list[str]) -> type[ConversionMethod] | None:
    """The method that a command line names; ``None`` where it names none, as with ``--help`` alone."""
    words = [word for word in arguments[:2] if not word.startswith("-")]
    name = (
        words[1] if len(words) == 2 else next((w for w in arguments if w in list_methods()), None)
    )
    if name is None:
        return None
    cls = method_class(name, imports=True)
    own = {f.name for f in dataclasses.fields(cls)} | {*inspect.signature(convert).parameters}
    for word in arguments:
        option = word.removeprefix("--").partition("=")[0]
        others = [n for n in list_methods() if option in _settings(method_class(n))]
        if word.startswith("--") and option not in own and others:
            raise InputError(
                f"method {cls.name!r} has no {option}; it belongs to {', '.join(others)}"
            )
    return cls


def _settings(cls: type[ConversionMethod]) -> dict[str, inspect.Parameter]:
    """A method's settings as options of a command."""
    hints = get_type_hints(cls)
    return {
        name: p.replace(kind=p.KEYWORD_ONLY, annotation=hints[name])
        for name, p in inspect.signature(cls).parameters.items()
    }


def _with_settings(cls: type[ConversionMethod] | None) -> Callable[..., Any]:
    """The command with a method's settings among its options, for a parser to read."""
    if cls is None:
        return convert

    def command(**options: Any) -> dict[str, Any]:
        return options

    plain, settings = inspect.signature(convert), _settings(cls)
    command.__name__ = convert.__name__
    command.__signature__ = plain.replace(  # type: ignore[attr-defined]
        parameters=[*plain.parameters.values(), *settings.values()]
    )
    hints = {name: p.annotation for name, p in settings.items()}
    command.__annotations__ = {**get_type_hints(convert), **hints}
    lines = [f"    {p.arg_name}: {p.description}" for p in parse(cls.__doc__ or "").params]
    before, returns, after = (inspect.getdoc(convert) or "").partition("\nReturns:")
    command.__doc__ = "\n".join([before.rstrip(), *lines, returns + after])
    return command


def show_conversion(result: ConvertResult) -> None:
    """What was changed, a table of what that did, and what to do next."""
    for sentence in summary(result):
        console.print(f"- {sentence}", highlight=False, soft_wrap=True)
    if result.audit is not None:
        console.print(_table(result))
        console.print(verdict(result), highlight=False, soft_wrap=True)
    else:
        console.print("Nothing was compared: no images were given.")
    weights = shlex.quote(str(result.path))
    data = "" if result.audit is not None and result.labelled else " --data DATA"
    following = f"nearfar audit {weights}{data}\n  nearfar export {weights} --out model.onnx"
    if not result.rebuilt:
        following = f"network = nearfar.load_checkpoint({str(result.path)!r}, network).model"
    console.print(f"\nNext:\n  {following}", highlight=False, soft_wrap=True)


def _table(result: ConvertResult) -> Table:
    assert result.audit is not None, "there are figures"
    count = len(result.audit.results["original"].curve.labels)
    what = "right" if result.labelled else "answered as the original does at scale 1"
    table = Table(title=f"{what}, in per cent of {count} held-out images")
    before, after = result.right("original"), result.right("converted")
    for heading in ("size", "original", "converted", "gain"):
        table.add_column(heading, justify="right")
    for scale in sorted(before):
        gain = after[scale] - before[scale]
        table.add_row(
            f"{scale:g}×",
            f"{100 * before[scale]:.1f}",
            f"{100 * after[scale]:.1f}",
            f"{100 * gain:+.1f}",
        )
    return table
