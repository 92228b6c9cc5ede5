"""What a conversion leaves on disk, and its report to be read."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from nearfar.atomic import make_folder, names_in, write_atomically
from nearfar.classifiers.answers import AsLogits
from nearfar.data import DataSpec
from nearfar.data.unreadable import SKIPPED
from nearfar.deploy.conversion_result import ConvertResult
from nearfar.errors import InputError
from nearfar.records import parse_json
from nearfar.training import FitSpec, ModelSpec, Recipe, TrainerSpec, save_checkpoint
from nearfar.training.run_folder import WEIGHTS
from nearfar.version import versions

__all__ = ["claim", "is_free", "page", "summary", "verdict", "write_conversion"]


_MARKER = "conversion.json"
#: Stands in the record of a network that was converted without images.
_NO_DATA = DataSpec()


@contextmanager
def claim(out: Path | str | None, settings: Mapping[str, Any]) -> Iterator[Path]:
    """Makes ``out`` this conversion's folder; without one, a folder for the time of the block.

    Args:
        out: the folder.
        settings: all that decides the outcome, the original's weights included: a conversion that is there
            already is taken up only where all of it is the same.

    Raises:
        InputError: ``out`` holds something else than this conversion, finished or interrupted.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="nearfar-") as folder:
            yield Path(folder)
        return
    out = Path(out)
    record = _plain({"schema": "nearfar.conversion/1", **settings})
    marker = out / _MARKER
    if not is_free(out) and _read(marker) != record:
        raise InputError(
            f"{out} is not empty and holds no conversion of these settings; choose another folder with --out"
        )
    make_folder(out)
    write_atomically(marker, json.dumps(record, indent=2) + "\n")
    yield out


def is_free(out: Path) -> bool:
    """Whether a folder is not there yet, or holds nothing but a list of what could not be read."""
    return not out.exists() or (out.is_dir() and names_in(out) <= {SKIPPED})


def _read(marker: Path) -> Any:
    try:
        return parse_json(marker.read_bytes(), str(marker), "convert again")
    except (OSError, InputError):
        return None


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    return json.loads(json.dumps(value, default=str))


def write_conversion(
    folder: Path,
    result: ConvertResult,
    network: nn.Module,
    spec: ModelSpec,
    recipe: Recipe | None,
    fingerprint: Mapping[str, Any] | None,
) -> Path:
    """Writes weights and report.

    Args:
        folder: the conversion's.
        result: the plan and the comparison.
        network: the converted one, without its normalisation.
        spec: what builds the converted one.
        recipe: of the training after it, or what it would have been; ``None`` where there are no images.
        fingerprint: of the recipe's images.

    Returns:
        The file of weights.
    """
    input_spec = result.classifier.input_spec
    without_data = recipe is None
    if recipe is None:
        data = dataclasses.replace(_NO_DATA, protocol=input_spec.protocol)
        recipe = Recipe(spec, data, FitSpec(), 0, TrainerSpec())
    figures = spec.normalisation()
    if isinstance(network, AsLogits):  # whoever reads the weights has the network itself
        network = network.network
    report = result.as_dict()
    save_checkpoint(
        folder / WEIGHTS,
        network,
        {
            "recipe": recipe.as_dict(),
            "in_chans": input_spec.in_chans,
            "class_names": list(input_spec.names()),
            "classes_named": input_spec.class_names is not None,
            "without_data": without_data or not result.labelled,
            "rebuilt": result.rebuilt,
            "data": None if fingerprint is None else dict(fingerprint),
            "normalisation": None if figures is None else dataclasses.asdict(figures),
            "conversion": report,
            **versions(),
        },
    )
    write_atomically(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_atomically(folder / "report.md", page(result))
    return folder / WEIGHTS


def summary(result: ConvertResult) -> list[str]:
    """What was changed and what was left, in sentences."""
    plan = result.plan
    layers = [c for c in plan.changes if c.name]
    if layers:
        kinds = Counter(f"{c.before} → {c.after}" for c in layers)
        count = "1 layer" if len(layers) == 1 else f"{len(layers)} layers"
        listed = "; ".join(f"{n} × {kind}" for kind, n in kinds.items())
        sentences = [f"{count} changed: {listed}."]
    else:
        sentences = [f"{c.before} became {c.after}." for c in plan.changes]
    for why in dict.fromkeys(x.why for x in plan.left):
        some = [x.name for x in plan.left if x.why == why]
        named = ", ".join(some[:3]) + (" …" if len(some) > 3 else "")
        stay = (
            "1 layer stays as it is" if len(some) == 1 else f"{len(some)} layers stay as they are"
        )
        sentences.append(f"{stay} ({named}): {why}.")
    if not result.rebuilt:
        sentences.append(
            "The network was given as a module, so the weights do not say what builds it: read them with "
            "nearfar.load_checkpoint(path, network), where network is converted alike."
        )
    return [*sentences, *plan.notes]


def page(result: ConvertResult) -> str:
    """The report as Markdown."""
    lines = [f"# {result.classifier.name}", ""]
    lines += [f"- {sentence}" for sentence in summary(result)]
    if result.audit is None:
        lines += ["", "Nothing was compared: no images were given.", ""]
        return "\n".join(lines)
    before, after = result.right("original"), result.right("converted")
    scales = sorted(before)
    what = "labels" if result.labelled else "answers of the original at scale 1"
    count = len(result.audit.results["original"].curve.labels)
    lines += [
        "",
        f"Right answers in per cent on {count} held-out images (right is what the {what} say):",
        "",
        "| | " + " | ".join(f"{s:g}×" for s in scales) + " |",
        "| --- |" + " ---: |" * len(scales),
        "| original | " + " | ".join(f"{100 * before[s]:.1f}" for s in scales) + " |",
        "| converted | " + " | ".join(f"{100 * after[s]:.1f}" for s in scales) + " |",
        "| gain | " + " | ".join(f"{100 * (after[s] - before[s]):+.1f}" for s in scales) + " |",
        "",
        verdict(result),
        "",
    ]
    costs = [result.audit.results[n].cost for n in ("original", "converted")]
    if costs[0] is not None and costs[1] is not None:
        ratio = costs[1].multiplications / max(1, costs[0].multiplications)
        lines += [
            f"{costs[1].parameters:,} parameters ({costs[1].parameters - costs[0].parameters:+,}), "
            f"{costs[1].multiplications:,} multiplications an image ({ratio:.2f} times the original's).",
            "",
        ]
    return "\n".join(lines)


def verdict(result: ConvertResult) -> str:
    """Whether enough is left at scale 1, in a sentence."""
    assert result.loss is not None, "it was compared"
    moved = f"{100 * abs(result.loss):.1f} points {'less' if result.loss > 0 else 'more'}"
    if result.accepted:
        return f"At scale 1 {moved} than before: within the {100 * result.max_loss:g} that may be lost."
    return (
        f"NOT ACCEPTED: at scale 1 {moved} than before, and {100 * result.max_loss:g} may be lost. "
        f"{result.remedy}"
    )
