"""Models by name, in timm's registry: our ``"x"`` is timm's ``"nearfar_x"``."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import timm
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    get_pretrained_cfg,
    register_model,
)
from timm.models._features import FeatureGetterNet
from torch import nn

from nearfar.errors import InputError
from nearfar.models.torchvision_nets import create_torchvision, is_torchvision
from nearfar.models.transformers_nets import NAME as TRANSFORMERS
from nearfar.models.transformers_nets import create_transformers
from nearfar.pretrained import list_pretrained, pretrained_config, pretrained_file

__all__ = [
    "PREFIX",
    "create_model",
    "has_shipped_weights",
    "input_size",
    "is_ours",
    "list_models",
    "register",
    "register_all",
]

#: What every name of ours begins with in timm's registry.
PREFIX = "nearfar_"

_Net = TypeVar("_Net", bound=nn.Module)
_SOURCES = ("url", "file", "hf_hub_id", "state_dict")
_COLOUR = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_GREY = {"mean": (0.0,), "std": (1.0,)}


def register(
    input_size: tuple[int, int, int] = (3, 32, 32),
    num_classes: int = 10,
    **cfg: Any,
) -> Callable[[Callable[..., _Net]], Callable[..., _Net]]:
    """Enters a function that builds a network into timm's registry, under its prefixed name.

    Args:
        input_size: channels, height and width of the images that the network was designed for.
        num_classes: classes it was designed for.
        cfg: more of timm's ``pretrained_cfg``: ``first_conv``, ``classifier``, ``fixed_input_size``
            (the network is built for one size, given as ``img_size``), …

    The built network has ``pretrained_cfg``; ``features_only=True`` gives its stages' maps, and
    weights can come from ``pretrained_cfg_overlay={"file": …}``, as with timm's own.
    """

    def enter(build: Callable[..., _Net]) -> Callable[..., _Net]:
        name = PREFIX + build.__name__

        def entry(
            pretrained: bool = False,
            pretrained_cfg: Any = None,
            pretrained_cfg_overlay: Any = None,
            cache_dir: Any = None,
            **options: Any,
        ) -> _Net:
            weights_cfg = {**_as_dict(pretrained_cfg), **(pretrained_cfg_overlay or {})}
            if pretrained and not any(weights_cfg.get(source) for source in _SOURCES):
                shipped = _shipped_config(build.__name__)
                options = {**shipped.pop("options"), **options}
                pretrained_cfg_overlay = {**shipped, **(pretrained_cfg_overlay or {})}
            return build_model_with_cfg(
                build,
                name,
                pretrained,
                pretrained_cfg=pretrained_cfg,
                pretrained_cfg_overlay=pretrained_cfg_overlay,
                cache_dir=cache_dir,
                pretrained_filter_fn=_renamed,
                feature_cfg={"out_indices": None, "feature_cls": _Features},
                **options,
            )

        entry.__name__ = entry.__qualname__ = name
        entry.__module__ = build.__module__
        entry.__doc__ = build.__doc__ and inspect.cleandoc(build.__doc__)
        module = sys.modules[build.__module__]
        grey = input_size[0] == 1
        full = {"classifier": "head.fc", **(_GREY if grey else _COLOUR), **cfg}
        full |= {"input_size": input_size, "num_classes": num_classes, "architecture": name}
        if not hasattr(module, "default_cfgs"):
            module.default_cfgs = {}  # type: ignore[attr-defined]
        # timm looks for the configuration beside the function, and appends the name to __all__.
        module.default_cfgs.update(generate_default_cfgs({name: full}))
        setattr(module, name, entry)
        register_model(entry)
        return build

    return enter


def _shipped_config(name: str) -> dict[str, Any]:
    """What is known of the weights that come with the package.

    Raises:
        InputError: none of this network do.
    """
    if pretrained_file(name) is None:
        raise InputError(
            f"{name} has no pretrained weights (they come with {', '.join(list_pretrained())}); leave "
            f"pretrained out and train it, or load your own with nearfar.load_weights(model, path)"
        )
    return dict(pretrained_config(name))


def register_all(
    template: str, values: Iterable[int], **cfg: Any
) -> Callable[[Callable[..., _Net]], Callable[..., _Net]]:
    """Enters one network for each number of a table, such as a depth.

    Args:
        template: the names, ``{}`` where the number goes; it goes into the docstring likewise.
        values: the numbers; each becomes the builder's first argument.
        cfg: as for :func:`register`.
    """

    def enter(build: Callable[..., _Net]) -> Callable[..., _Net]:
        for value in values:
            one = functools.partial(build, value)
            functools.update_wrapper(one, build)
            one.__name__ = template.format(value)  # type: ignore[attr-defined]
            one.__doc__ = (inspect.getdoc(build) or "").replace("{}", str(value))
            register(**cfg)(one)
        return build

    return enter


def _as_dict(cfg: Any) -> dict[str, Any]:
    """A configuration that came as timm's class, as a dictionary, or as a tag."""
    return cfg if isinstance(cfg, dict) else getattr(cfg, "to_dict", dict)()


def _renamed(state: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Somebody else's names for a network's tensors as ours, where the network knows them."""
    rename = getattr(model, "adapt_state_dict", None)
    return rename(state) if rename else state


class _Features(FeatureGetterNet):
    """``features_only`` of our networks: all stages unless some are asked for."""

    def __init__(self, model: nn.Module, out_indices: Any = None, **options: Any) -> None:
        if not hasattr(model, "forward_intermediates"):
            raise InputError(
                f"{type(model).__name__} has no stages to take features from; leave features_only "
                f"out, or take forward_features"
            )
        if out_indices is None:
            out_indices = list(range(len(model.feature_info)))  # type: ignore[arg-type]
        super().__init__(model, out_indices=out_indices, **options)


def list_models(pattern: str = "*") -> list[str]:
    """Names of nearfar's own models that match a wildcard pattern, such as ``"wsms_*"``."""
    return [name.removeprefix(PREFIX) for name in timm.list_models(PREFIX + pattern)]


def is_ours(name: str | None) -> bool:
    """Whether a name in timm's registry is of a network of nearfar's."""
    return name is not None and name.startswith(PREFIX)


def has_shipped_weights(cfg: Mapping[str, Any] | None) -> bool:
    """Whether a network was built with the weights that come with the package.

    Args:
        cfg: its ``pretrained_cfg``.
    """
    name = (cfg or {}).get("architecture")
    if not cfg or not is_ours(name):
        return False
    file = pretrained_file(str(name).removeprefix(PREFIX))
    return file is not None and cfg.get("file") == str(file)


def create_model(
    name: str, *, num_classes: int | None = None, in_chans: int | None = None, **options: Any
) -> nn.Module:
    """A model by name: one of ours, any of timm's, ``torchvision/NAME``, or ``transformers``.

    Args:
        name: a name from :func:`list_models`, or one from ``timm.list_models()``.
        num_classes: number of classes, 0 to leave the classifier out; default: what the network was
            designed for (``pretrained_cfg``).
        in_chans: channels of the input image; default: what the network was designed for.
        options: the model's own options, such as ``scales`` of a scale-invariant one, or ``config`` of
            ``transformers``;
            ``pretrained=True`` fetches the weights that timm or torchvision publish, or loads those of ours
            that come with the package (:func:`nearfar.pretrained.list_pretrained`). As with timm, the
            network then takes images normalised by the mean and std of its ``pretrained_cfg``.

    Raises:
        InputError: unknown name, unknown option, an option the model refuses, or weights that cannot be
            fetched.
    """
    if (num_classes is not None and num_classes < 0) or (in_chans is not None and in_chans < 1):
        raise InputError(
            f"num_classes must be at least 0 and in_chans at least 1, got {num_classes} and {in_chans}"
        )
    if name == TRANSFORMERS:
        return create_transformers(num_classes=num_classes, in_chans=in_chans, **options)
    if is_torchvision(name):
        return create_torchvision(name, num_classes, in_chans, **options)
    timm_name = _timm_name(name)
    counts = {"num_classes": num_classes, "in_chans": in_chans}
    options |= {key: value for key, value in counts.items() if value is not None}
    try:
        model: nn.Module = timm.create_model(timm_name, **options)
    except InputError:
        raise
    except Exception as cause:
        if not options.keys() - counts.keys():
            raise
        raise InputError(
            f"model {name!r} does not take these options: {cause}; got {options}"
        ) from cause
    return model


def input_size(name: str) -> tuple[int, int, int]:
    """Channels, height and width of the images that a network was designed for.

    Args:
        name: as :func:`create_model` takes it; without weights' tag or with (``resnet50.a1_in1k``).

    Raises:
        InputError: unknown name.
    """
    if is_torchvision(name):
        return 3, 224, 224
    cfg = get_pretrained_cfg(_timm_name(name))
    channels, height, width = (cfg and cfg.input_size) or (3, 224, 224)
    return int(channels), int(height), int(width)


def _timm_name(name: str) -> str:
    """The name in timm's registry.

    Raises:
        InputError: it is not there.
    """
    ours = PREFIX + name.removeprefix(PREFIX)
    timm_name = ours if timm.is_model(ours) else name
    if not timm.is_model(timm_name):
        names = [*list_models(), *timm.list_models(exclude_filters=PREFIX + "*")]
        close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(close)}?" if close else ""
        raise InputError(
            f"no model is named {name!r}{hint}; nearfar.list_models() and timm.list_models() list "
            f"all names"
        )
    return timm_name
