"""Image classifiers of the ``transformers`` library, from their configuration."""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nearfar.errors import InputError, first_line
from nearfar.records import as_typed, parse_json

__all__ = ["NAME", "TransformersNet", "create_transformers", "transformers_from_folder"]

#: Under which name :func:`nearfar.create_model` builds them, with the option ``config``.
NAME = "transformers"
#: What a configuration may not hold: with it, building the network would fetch or run something else.
_SOURCES = (
    *("auto_map", "backbone", "backbone_config", "custom_pipelines", "quantization_config"),
    *("use_pretrained_backbone", "use_timm_backbone"),
)
#: Where a configuration came from, which says nothing of the network.
_ORIGIN = ("_name_or_path", "transformers_version", "architectures", "torch_dtype", "dtype")


class TransformersNet(nn.Module):
    """A classifier of transformers' as a network: images → logits, and nothing else.

    Args:
        net: one of ``AutoModelForImageClassification``'s.

    Shape:
        ``[B, C, H, W]`` → ``[B, K]``.

    Limits:
        Vision transformers take images of their own size: positions are not interpolated.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        config: Any = net.config
        self.num_classes = int(config.num_labels)
        self.in_chans = int(getattr(config, "num_channels", 3))
        side = getattr(config, "image_size", None)
        self.image_size = side if isinstance(side, int) else None

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(pixel_values=x).logits
        return logits


def create_transformers(
    config: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
) -> TransformersNet:
    """A classifier with random weights.

    Args:
        config: what its ``config.json`` holds, ``model_type`` among it.
        num_classes, in_chans: in place of the configuration's.

    Raises:
        InputError: transformers is not installed, a configuration without ``model_type``, of no image
            classifier, or with which building the network would fetch or run something else.
    """
    settings = checked_config(dict(config or {}), "config")
    kind = settings.pop("model_type")
    if in_chans is not None:
        settings["num_channels"] = in_chans
    if num_classes is not None and num_classes != len(settings.get("id2label", ())):
        settings = {k: v for k, v in settings.items() if k not in ("id2label", "label2id")}
        settings["num_labels"] = num_classes
    with _quietly() as transformers:
        try:
            built = transformers.AutoConfig.for_model(kind, **settings)
            net = transformers.AutoModelForImageClassification.from_config(
                built, trust_remote_code=False
            )
        except Exception as cause:  # whatever a configuration of any kind makes it raise
            raise InputError(
                f"transformers builds no image classifier of this configuration (model_type={kind!r}): "
                f"{first_line(cause)}; give that of an image classifier"
            ) from cause
    return TransformersNet(net)


def transformers_from_folder(folder: Path) -> TransformersNet:
    """The classifier in a folder that ``save_pretrained`` of transformers wrote, with its weights.

    Nothing but files of that folder is opened, and nothing in it is run: weights are read from safetensors.

    Raises:
        InputError: transformers is not installed, no image classifier, code of its own, weights that are not
            safetensors, or weights without a classifier.
    """
    checked_config(read_json(folder / "config.json"), str(folder / "config.json"))
    with _quietly() as transformers:
        try:
            net, loading = transformers.AutoModelForImageClassification.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as cause:  # files of any make
            raise InputError(
                f"{folder} cannot be opened as an image classifier of transformers: {first_line(cause)}; "
                f"name a folder with config.json and model.safetensors of one"
            ) from cause
    missing = sorted(loading["missing_keys"])
    if missing:
        raise InputError(
            f"{folder} has no weights for {', '.join(missing[:3])}{' …' if len(missing) > 3 else ''}: it is "
            f"no trained classifier; fine-tune it first"
        )
    return TransformersNet(net.eval())


def plain_config(network: TransformersNet) -> dict[str, Any]:
    """What builds a network again, as plain data."""
    config: Any = network.net.config
    record = json.loads(json.dumps(config.to_dict(), default=str))
    return {k: v for k, v in record.items() if k not in _ORIGIN and v is not None}


def checked_config(config: dict[str, Any], source: str) -> dict[str, Any]:
    """A configuration that says what it is and names nothing else to fetch or run.

    Raises:
        InputError: it does not, or names such.
    """
    if not isinstance(config.get("model_type"), str):
        raise InputError(f"{source} must name its model_type, as transformers writes it")
    named = [key for key in _SOURCES if config.get(key)]
    if named:
        raise InputError(
            f"{source} has {', '.join(named)}, with which opening it would fetch or run something else; save "
            f"the network without it"
        )
    return config


def read_json(path: Path) -> dict[str, Any]:
    """A file's JSON object.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    mend = "save the network again with save_pretrained"
    try:
        content = parse_json(path.read_bytes(), str(path), mend, finite=False)
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}; {mend}") from cause
    record: dict[str, Any] = as_typed(dict[str, Any], content, str(path))
    return record


@contextmanager
def _quietly() -> Iterator[Any]:
    """transformers, which is not to print or show progress meanwhile.

    Raises:
        InputError: it is not installed.
    """
    if importlib.util.find_spec("transformers") is None:
        raise InputError(
            "this classifier needs transformers, which is not installed: pip install 'nearfar[transformers]'"
        )
    transformers = importlib.import_module("transformers")
    logging: Any = importlib.import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
