"""The page that a repository on the hub shows: what the classifier is, how to use it, its figures."""

from __future__ import annotations

from typing import Any

from huggingface_hub import ModelCardData

from nearfar.training import Checkpoint

__all__ = ["model_card"]

_NAMED = 20


def model_card(
    checkpoint: Checkpoint,
    repository: str = "hub:OWNER/NAME",
    license: str | None = None,  # noqa: A002
) -> str:
    """A model card in Markdown, with the metadata that the hub reads above it.

    Args:
        checkpoint: what ``nearfar train`` or ``nearfar convert`` wrote; its record gives the figures.
        repository: under which name to open it.
        license: of the weights, by the hub's names, such as ``mit``.
    """
    recipe, record = checkpoint.recipe, checkpoint.record
    data = ModelCardData(
        library_name="nearfar",
        pipeline_tag="image-classification",
        tags=["nearfar", "scale-invariance"],
        license=license,
    )
    name, names = recipe.model.name, checkpoint.class_names
    protocol = recipe.data.protocol
    rows = [
        ("network", f"`{name}`"),
        ("parameters", f"{_parameters(checkpoint):,}"),
        ("images", f"{'×'.join(map(str, protocol.canvas_size))}, channels: {record['in_chans']}"),
        ("classes", f"{len(names)}: {_listed(names)}"),
        ("data", f"`{checkpoint.data.source}`" if checkpoint.data else "not known"),
        ("scales in training", _scales(checkpoint)),
        *_figures(record),
    ]
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    return f"""---
{data.to_yaml()}
---

# {name}

An image classifier made with nearfar. Input: values from 0 to 1; the network normalises them itself.

| | |
| --- | --- |
{table}

## Use

```sh
nearfar predict {repository} photo.jpg
```

```python
import nearfar

for answer in nearfar.predict("{repository}", ["photo.jpg"]):
    answer.label, answer.confidence
```

`{repository}` can also be given to `nearfar.load_classifier`, `nearfar export` and `nearfar audit`. The
figures above are what the training recorded in `model.safetensors`; `nearfar audit` measures accuracy against
size.
"""


def _figures(record: dict[str, Any]) -> list[tuple[str, str]]:
    """What the record has of them: not every checkpoint comes from a training."""
    figures = []
    if record.get("validation_accuracy") is not None:
        figures.append(("validation accuracy", f"{100 * record['validation_accuracy']:.1f} %"))
    if record.get("validation_loss") is not None:
        figures.append(("validation loss", f"{record['validation_loss']:.4g}"))
    if record.get("best_epoch") is not None:
        figures.append(("epoch", f"{record['best_epoch']}"))
    versions = [f"{what} {record[what]}" for what in ("nearfar", "torch") if record.get(what)]
    return [*figures, *([("made with", ", ".join(versions))] if versions else [])]


def _parameters(checkpoint: Checkpoint) -> int:
    return sum(p.numel() for p in checkpoint.model.parameters())


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def _scales(checkpoint: Checkpoint) -> str:
    protocol = checkpoint.recipe.data.protocol
    if protocol.train_band is not None:
        low, high = protocol.train_band
        return f"{low:g} to {high:g}"
    return ", ".join(f"{scale:g}" for scale in protocol.train_scales)
